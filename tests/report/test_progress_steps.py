"""The progress of steps on standard error."""

from __future__ import annotations

import sys

import pytest

from anynorm.report.progress import steps


def test_lines_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with steps("count", 20) as advance:
        for _ in range(5):
            advance(4)
    lines = ["count ...", *(f"count: {done}%" for done in (20, 40, 60, 80, 100))]
    assert capsys.readouterr().err == "".join(f"anynorm: {line}\n" for line in lines)


def test_without_their_number_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with steps("count", None) as advance:
        advance(3)
    assert capsys.readouterr().err == "anynorm: count ...\n"


def test_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with steps("count", 2) as advance:
        advance(2)
    assert "count" in capsys.readouterr().err


def test_a_closed_stream_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: str) -> int:
        raise OSError("closed")

    monkeypatch.setattr(sys.stderr, "write", closed)
    with steps("count", 2) as advance:
        advance(2)
