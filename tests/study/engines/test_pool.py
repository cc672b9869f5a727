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
from anynorm.study.engines import Failure, Limits, engine, run_cells
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


class Short(Limits):
    """Little time for the models that never return, and enough for all others."""

    def of(self, cell: Cell) -> float:
        return 1.0 if cell.subject in ("pool_models:waits", "pool_models:spins") else 600.0


@pytest.mark.parametrize("endless", ["waits", "spins"])
def test_a_run_that_never_returns_is_ended(store: Store, endless: str) -> None:
    cells = [cell(endless), cell("well"), cell("well", seed=1)]
    begin = time.monotonic()
    outcome = run_cells(engine("local", 1, Short(1.0)), cells, store, done=lambda _: None)
    assert time.monotonic() - begin < 300  # it waits for 600 seconds, or for ever
    assert store.present() == {one.key for one in cells[1:]}
    [failure] = outcome.failures
    assert failure.cell == cells[0]
    assert failure.reason == (
        "it was stopped because it had not finished after 1 s (the limit that was set). "
        "If it needs more time, give run_minutes= (--run-minutes)."
    )


def test_a_run_that_closes_its_pipe_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anynorm.study.engines.pool._SECONDS_TO_END", 1.0)
    begin = time.monotonic()
    [(_, reason)] = engine("local", 1).run([cell("closes_its_pipe")], store)
    assert time.monotonic() - begin < 300  # it waits for 600 seconds
    assert reason == "its process was killed by signal 9, 2 times (out of memory?)"


def test_a_run_that_raises_as_ctrl_c_does_has_failed_once(store: Store) -> None:
    [(_, reason)] = engine("local", 1).run([cell("asks_to_stop")], store)
    assert reason is not None
    assert reason.rstrip().endswith("KeyboardInterrupt")
    assert "pool_models.py" in reason


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
