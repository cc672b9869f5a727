"""What is said of a study's progress."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from anynorm.study import progress
from anynorm.study.cell import Cell
from anynorm.study.progress import show_progress

CELL = Cell(subject="cnn", data="digits", norm="batch", lr=0.1, steps=850, seed=0)


def cells(count: int) -> list[Cell]:
    return [replace(CELL, seed=seed) for seed in range(count)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the tests set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def shown(missing: list[Cell], stored: int, clock: list[float]) -> None:
    """Report runs of 30 seconds each."""
    with show_progress(missing, stored, shown=True) as done:
        for one in missing:
            clock[0] += 30
            done(one)


def test_nothing_is_shown_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with show_progress(cells(2), 3, shown=False) as done:
        done(CELL)
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_line_for_each_tenth(
    clock: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    shown(cells(40), 2, clock)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "anynorm: 42 runs, 2 of them in the store already; 40 to train."
    assert lines[1] == "anynorm: 10% (4 of 40 runs), about 18 min 0 s left."
    assert lines[-1] == "anynorm: 100% (40 of 40 runs) in 20 min 0 s."
    assert len(lines) == 11


def test_a_long_study_has_an_estimate_before_its_first_tenth(
    clock: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    shown(cells(100), 0, clock)
    lines = capfd.readouterr().err.splitlines()
    assert lines[:3] == [
        "anynorm: 100 runs to train.",
        "anynorm: 4 runs are finished, about 48 min 0 s left.",
        "anynorm: 10% (10 of 100 runs), about 45 min 0 s left.",
    ]


def test_long_runs_count_for_more(clock: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    shown([*cells(5), replace(CELL, steps=4850)], 0, clock)
    lines = capfd.readouterr().err.splitlines()
    assert lines[1:4] == [
        "anynorm: 10% (1 of 6 runs).",
        "anynorm: 20% (2 of 6 runs).",
        "anynorm: 30% (3 of 6 runs).",
    ]
    assert lines[4] == "anynorm: 40% (4 of 6 runs), about 3 min 0 s left."


def test_what_is_in_the_store_and_what_is_refined_is_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with show_progress([], 7, shown=True):
        pass
    with show_progress(cells(1), 0, shown=True, refining=True):
        pass
    first, second = capfd.readouterr().err.splitlines()
    assert first == "anynorm: all 7 runs are in the store already."
    assert second == "anynorm: 1 run more to refine the limits of the usable learning rates."


def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress(cells(2), 0, shown=True) as done:
        done(CELL)
        done(CELL)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "time left" in err


def test_a_stream_that_is_closed_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _: str) -> None:
            raise BrokenPipeError

        flush = write

        def isatty(self) -> bool:
            return False

    finished = []
    for stream in (Closed(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with show_progress(cells(1), 0, shown=True) as done:
            done(CELL)
            finished.append(CELL)
    assert len(finished) == 2


def test_errors_of_the_study_are_passed_on() -> None:
    with pytest.raises(ArithmeticError), show_progress(cells(1), 0, shown=True):
        raise ArithmeticError
