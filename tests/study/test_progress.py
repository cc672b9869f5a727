"""The progress bar."""

from __future__ import annotations

import pytest

from anynorm.study.cell import Cell
from anynorm.study.progress import bar

CELL = Cell(subject="cnn", data="digits", norm="batch", lr=0.1, steps=1, seed=0)


def test_nothing_is_shown_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with bar(2, shown=False) as done:
        done(CELL)
    assert capfd.readouterr() == ("", "")


def test_bar_counts_on_the_error_stream(capfd: pytest.CaptureFixture[str]) -> None:
    with bar(2, shown=True) as done:
        done(CELL)
        done(CELL)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "2/2" in shown.err
    assert "time left" in shown.err
