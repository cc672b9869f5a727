"""``anynorm bench``: the table, the file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anynorm import bench, cli
from anynorm.bench import timing
from anynorm.bench.timing import Budget

SMALL = "^rms/.*256x128/fp32"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is spent on measuring, and on no other device than the processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(timing, "BUDGETS", {"cpu": Budget(0.0, 2, 2, 0.0)})


def test_a_table_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "speed.json"
    assert cli.main(["bench", "--only", SMALL, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    names = [f"rms/contiguous/256x128/fp32/plain/{phase}" for phase in ("forward", "both")]
    assert [row["name"] for row in found["cases"]] == names
    assert found["about"]["device"] == "cpu"
    assert found["about"]["torch"] == torch.__version__
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if line.startswith("case"))
    assert heading.split()[-6:] == ["torch.nn", "/", "ours", "torch.compile", "/", "ours"]
    assert [line.split()[0] for line in lines if line.startswith("rms/")] == names
    assert f"results: {out}" in lines
    assert "torch.nn / ours: median" in lines[-1]
    assert lines[-1].endswith("of 2 cases")


def test_what_was_asked_of_the_measurement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    threads = torch.get_num_threads()
    monkeypatch.setattr("anynorm.tune_allocator", lambda: seen.append("tuned"))
    monkeypatch.setattr(bench, "measure", lambda *given: seen.append(given) or iter(()))
    words = ["--tune-allocator", "--compile", "--seconds", "0.5", "--threads", "1", "--only", "^l"]
    try:
        assert cli.main(["bench", *words]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    tuned, (cases, budget, device, compiles) = seen
    assert tuned == "tuned"
    assert {case.normalizer for case in cases} == {"layer"}
    assert (budget.seconds, device, compiles) == (0.5, "cpu", True)


def test_failures_are_in_the_table_and_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (case, *_) = bench.CASES
    row = {"name": case.setup, "failed": "RuntimeError: no memory"}
    monkeypatch.setattr(bench, "measure", lambda *_: iter([row]))
    assert cli.main(["bench"]) == 1
    assert "failed: RuntimeError: no memory" in capsys.readouterr().out


def test_an_interruption_leaves_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(*_: Any) -> Any:
        yield {"name": "a", "failed": "no"}
        raise KeyboardInterrupt

    out = tmp_path / "speed.json"
    monkeypatch.setattr(bench, "measure", measure)
    assert cli.main(["bench", "--out", str(out)]) == 130
    assert json.loads(out.read_text())["cases"] == [{"name": "a", "failed": "no"}]


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [case.name for case in bench.CASES]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "nothing like that"], "--list prints"),
        (["--only", "*"], "is not a regular expression"),
        (["--device", "tpu"], "there is no device 'tpu'"),
        (["--out", "."], "'.'"),
        (["--peers", "jax"], "no option '--peers'"),
    ],
)
def test_bad_input(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2
    assert told in capsys.readouterr().err
