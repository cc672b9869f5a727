"""The pool: runs that fail, processes that die, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_cells import cell

from anynorm.study.cell import Cell
from anynorm.study.engines import Failure, engine, run_cells
from anynorm.study.store import Store


def test_failures_and_deaths_stop_nothing_else(store: Store) -> None:
    good = [cell("well", seed=seed) for seed in range(3)]
    bad = [cell("raises"), cell("dies"), cell("refused")]
    done: list[Cell] = []
    outcome = run_cells(
        engine("local", 2), [*bad, cell("dies_once"), *good], store, done=done.append
    )
    assert not outcome.interrupted
    assert {record["key"] for record in store.records()} == {
        one.key for one in [*good, cell("dies_once")]
    }
    assert set(done) == {*good, *bad, cell("dies_once")}
    reasons = {failure.cell: failure.reason for failure in outcome.failures}
    assert set(reasons) == set(bad)
    assert "Traceback" in reasons[bad[0]]
    assert "on purpose" in reasons[bad[0]]
    assert reasons[bad[2]] == "this is the rule"
    assert reasons[bad[1]] == "its process ended with exit code 7, 2 times"


def test_a_run_that_calls_sys_exit_has_failed(store: Store) -> None:
    [(_, reason)] = engine("local", 1).run([cell("quits")], store)
    assert reason is not None
    assert reason.startswith("the program was ended by sys.exit(0) in ")
    assert "pool_models.py, line" in reason


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a run cannot fork here")
def test_the_death_of_a_run_is_noticed_while_its_child_lives(store: Store) -> None:
    begin = time.monotonic()
    try:
        results = list(engine("local", 1).run([cell("leaves_a_child")], store))
    finally:
        for file in Path().glob("child-*"):
            os.kill(int(file.name.removeprefix("child-")), signal.SIGKILL)
    assert time.monotonic() - begin < 300  # its child sleeps for 600 seconds
    [(lost, reason)] = results
    assert lost == cell("leaves_a_child")
    assert reason == "its process was killed by signal 9, 2 times (out of memory?)"


def test_nothing_to_run_starts_no_process(store: Store) -> None:
    outcome = run_cells(engine("local", 2), [], store, done=lambda _: None)
    assert (outcome.failures, outcome.interrupted) == ([], False)


def test_failure_names_the_whole_setting() -> None:
    text = str(Failure(cell("well", lr=0.3, placement="after", noise=True), "because"))
    assert text == (
        "pool_models:well, batch + noise (lr 0.3, init 1, batch 60, after, seed 0) failed:\nbecause"
    )


@pytest.mark.slow
def test_script_without_a_main_guard_is_told_what_to_do(store: Store) -> None:
    script = "import anynorm\nanynorm.study('pool_models:well', norms=['batch'], store='s')\n"
    Path("script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
