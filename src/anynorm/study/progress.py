"""The progress of a study on standard error: a bar on a terminal, otherwise lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from anynorm.report.progress import harmless, say
from anynorm.report.text import visible
from anynorm.study.cell import Cell

__all__ = ["duration", "show_progress"]

# The first estimate comes after this many runs: fewer say little about the others.
_RUNS_FOR_AN_ESTIMATE = 4
_STEPS_TO_EVALUATE = 150


@contextmanager
def show_progress(
    missing: Sequence[Cell], stored: int, *, shown: bool, refining: bool = False
) -> Iterator[Callable[[Cell], None]]:
    """Print the number of runs and their progress; yield a function to call after each run.

    `missing` are the runs to do, and `stored` counts those in the store. With `refining`, they are
    in addition to the runs that were announced. If the stream cannot be written, the study goes on.
    """
    reporter = _reporter(missing, shown)
    if shown:
        harmless(say, _announcement(len(missing), stored, refining))
    harmless(reporter.begin)
    try:
        yield lambda cell: harmless(reporter.done, cell)
    finally:
        harmless(reporter.end)


class _Reporter(Protocol):
    def begin(self) -> None: ...

    def done(self, cell: Cell) -> None: ...

    def end(self) -> None: ...


def _reporter(missing: Sequence[Cell], shown: bool) -> _Reporter:
    if not (shown and missing and sys.stderr):
        return _Silence()
    return _Bar(missing) if sys.stderr.isatty() else _Lines(missing)


def _announcement(missing: int, stored: int, refining: bool) -> str:
    if refining:
        more = f"{_runs(missing + stored)} more to refine the limits of the usable learning rates"
        return f"{more}." if missing else f"{more}, all in the store already."
    if not missing:
        return f"all {_runs(stored)} are in the store already."
    if not stored:
        return f"{_runs(missing)} to train."
    return f"{_runs(missing + stored)}, {stored} of them in the store already; {missing} to train."


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


def _work(cell: Cell) -> float:
    """The estimated time of a run in units of training steps, as measured with built-in models.

    Probes take about as long as the training they measure, evaluations as long as some steps.
    """
    return _STEPS_TO_EVALUATE + cell.steps * (2 if cell.probes else 1)


class _Silence:
    def begin(self) -> None:
        pass

    def done(self, cell: Cell) -> None:
        pass

    def end(self) -> None:
        pass


class _Lines:
    """A line for the first estimate and for each tenth of the work."""

    def __init__(self, missing: Sequence[Cell]) -> None:
        self.runs, self.total = len(missing), sum(map(_work, missing))
        self.finished, self.worked, self.tenths = 0, 0.0, 0
        # The first run waits for its process to start, so the speed is measured from its end.
        self.start = self.first = self.before = 0.0

    def begin(self) -> None:
        self.start = time.monotonic()

    def done(self, cell: Cell) -> None:
        self.finished += 1
        self.worked += _work(cell)
        if self.finished == 1:
            self.first, self.before = time.monotonic(), self.worked
        tenths = int(10 * self.worked / self.total + 1e-9)
        if tenths > self.tenths:
            self.tenths = tenths
            say(f"{10 * tenths}% ({self.finished} of {_runs(self.runs)}){self._time()}.")
        elif self.finished == _RUNS_FOR_AN_ESTIMATE:
            say(f"{_runs(self.finished)} are finished{self._time()}.")

    def end(self) -> None:
        pass

    def _time(self) -> str:
        now = time.monotonic()
        if self.finished == self.runs:
            return f" in {duration(now - self.start)}"
        if self.finished < _RUNS_FOR_AN_ESTIMATE:
            return ""
        seconds = (now - self.first) / (self.worked - self.before)
        return f", about {duration(seconds * (self.total - self.worked))} left"


class _Bar:
    """A bar that grows by the work done."""

    def __init__(self, missing: Sequence[Cell]) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[runs]}"),
            TimeElapsedColumn(),
            TextColumn("time left"),
            # Runs differ in length: a long memory makes the estimate steady.
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self.progress = Progress(*columns, console=console, speed_estimate_period=120)
        self.count, self.finished = len(missing), 0
        self.task = self.progress.add_task(
            "training", total=sum(map(_work, missing)), runs=f"0/{self.count}"
        )

    def begin(self) -> None:
        self.progress.start()

    def done(self, cell: Cell) -> None:
        self.finished += 1
        self.progress.update(
            self.task,
            advance=_work(cell),
            description=visible(cell.label[:40]),
            runs=f"{self.finished}/{self.count}",
        )

    def end(self) -> None:
        self.progress.stop()


def duration(seconds: float) -> str:
    """Return a time in words, with two units at most.

    >>> duration(42.3), duration(200), duration(7260)
    ('42 s', '3 min 20 s', '2 h 1 min')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
