"""``anynorm study``."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from anynorm import cli
from anynorm.study.cell import Cell
from anynorm.study.engines import Failure
from anynorm.study.evidence import build


class FakeStudy:
    """What the library returns, without the training."""

    def __init__(self, **changes: Any) -> None:
        self.records, self.planned, self.failures, self.interrupted = [{}], 2, [], False
        vars(self).update(changes)
        failures = [(failure.run, failure.reason) for failure in self.failures]
        self.evidence = build([], title="", command="", failures=failures)

    def table(self) -> None:
        print("the table")

    def to_parquet(self, path: str) -> None:
        Path(path).write_text("parquet")


@pytest.fixture(autouse=True)
def keep_warnings() -> Any:
    with warnings.catch_warnings():
        yield


def call(monkeypatch: pytest.MonkeyPatch, words: str, **changes: Any) -> tuple[int, dict[str, Any]]:
    """Run a command line; returns the status and what the library was called with."""
    given: dict[str, Any] = {}

    def study(**options: Any) -> FakeStudy:
        given.update(options)
        return FakeStudy(**changes)

    monkeypatch.setattr("anynorm.study.api.study", study)
    return cli.main(words.split()), given


def test_options_become_the_arguments_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "study --model cnn --norms none group:groups=4 --lrs 0.1 1 --inits --batches 32 2"
    words += " --no-noise --full --seeds 5 --store folder"
    status, given = call(monkeypatch, words)
    assert status == 0
    assert given["command"] == f"anynorm {words}"
    assert given["model"] == "cnn"
    assert given["norms"] == ["none", "group:groups=4"]
    assert (given["lrs"], given["inits"], given["batches"]) == ([0.1, 1.0], [], [32, 2])
    assert (given["noise"], given["full"], given["seeds"]) == (False, True, 5)
    assert given["report"] == str(Path("folder") / "report.html")


def test_the_command_line_has_every_argument_of_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import inspect

    from anynorm.study.api import study

    arguments = set(inspect.signature(study).parameters)
    _, given = call(monkeypatch, "study")
    assert set(given) == arguments


def test_defaults_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    from anynorm.study.api import study

    parameters = inspect.signature(study).parameters
    _, given = call(monkeypatch, "study")
    for name in set(given) - {"command", "report", "progress"}:
        assert given[name] == parameters[name].default, name


def test_parquet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, _ = call(monkeypatch, f"study --parquet {tmp_path / 'runs.parquet'}")
    assert (status, (tmp_path / "runs.parquet").read_text()) == (0, "parquet")


def test_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "study.json"
    status, _ = call(monkeypatch, f"study --json {file}")
    assert status == 0
    assert json.loads(file.read_text())["studies"] == []
    assert f"JSON: {file}" in capsys.readouterr().out


def test_parquet_that_has_nowhere_to_go_is_refused_before_the_study(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, given = call(monkeypatch, f"study --parquet {tmp_path}")
    assert (status, given) == (2, {})
    assert f"the Parquet file '{tmp_path}' cannot be written" in capsys.readouterr().err


def test_failed_runs_are_reported_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell(subject="cnn", data="digits", norm="batch", lr=0.1, steps=1, seed=0)
    failures = [Failure(cell, "Traceback: it broke")] * 3
    status, _ = call(monkeypatch, "study", failures=failures)
    shown = capsys.readouterr()
    assert status == 1
    assert "the table" in shown.out
    assert "cnn, batch (lr 0.1" in shown.err
    assert "and 2 more failed" in shown.err
    assert shown.err.count("it broke") == 1
    assert "1 of 2 runs finished; the others failed" in shown.err


def test_interrupted_study(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _ = call(monkeypatch, "study", interrupted=True)
    assert status == 130
    assert "run the same command again to resume" in capsys.readouterr().err


def test_study_interrupted_before_its_first_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def study(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("anynorm.study.api.study", study)
    assert cli.main(["study"]) == 130
    assert (
        capsys.readouterr().err == "anynorm: interrupted; run the same command again to resume.\n"
    )


def test_warnings_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "study")
    warnings.simplefilter("always")
    warnings.warn("a record was moved aside", stacklevel=1)
    assert capsys.readouterr().err == "anynorm: a record was moved aside\n"
