"""The time limit of a run, based on the runs that have finished."""

from __future__ import annotations

import math

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell
from anynorm.study.progress import duration
from anynorm.study.store import Record

__all__ = ["FIRST_SECONDS", "RUN_SECONDS", "Limits"]

# The time of the whole run, evaluations included, in the costs of its record.
RUN_SECONDS = "run_seconds"

# A slow normalizer may take this many times as long as the longest run that has finished.
_TIMES = 20
_LEAST_SECONDS = 60.0
# The limit before any run has finished, when the time of a run is unknown.
FIRST_SECONDS = 6 * 3600.0


class Limits:
    """The time limit of each run: `seconds` if given, and otherwise 20 times the longest run.

    The time of a finished run is scaled up if it had fewer steps, a smaller batch or fewer probes
    than the run that is limited. The limit is at least one minute, and six hours until the first
    run has finished.

    >>> limits = Limits()
    >>> cell = Cell(subject="cnn", data="digits", norm="batch", lr=0.1, steps=100, seed=0)
    >>> limits.of(cell)
    21600.0
    >>> limits.learn(cell, 30.0)
    >>> limits.of(cell)
    600.0
    """

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and not seconds > 0:
            raise AnynormError(
                f"the time limit of a run is {seconds} seconds; it must be positive."
            )
        self.given = seconds
        self.longest: dict[tuple[int, int, bool], float] = {}

    def learn(self, cell: Cell, seconds: float) -> None:
        """Use the time of a finished run."""
        size = _size(cell)
        self.longest[size] = max(seconds, self.longest.get(size, 0.0))

    def learn_record(self, record: Record) -> None:
        """Use the time of a stored run, as its engine recorded it."""
        seconds = record["cost"].get(RUN_SECONDS)
        if isinstance(seconds, (int, float)) and 0 < seconds < math.inf:
            self.learn(Cell.from_dict(record["cell"]), seconds)

    def of(self, cell: Cell) -> float:
        """The seconds that a run may take."""
        if self.given is not None:
            return self.given
        size = _size(cell)
        expected = [seconds * _ratio(size, known) for known, seconds in self.longest.items()]
        return max(_LEAST_SECONDS, _TIMES * max(expected)) if expected else FIRST_SECONDS

    def why(self, seconds: float) -> str:
        """The reason of the failure of a run that exceeded its limit; '' if there is no limit."""
        if not math.isfinite(seconds):
            return ""
        rule = (
            "the limit that was set"
            if self.given is not None
            else f"{_TIMES} times the longest finished run, but at least {duration(_LEAST_SECONDS)}"
            if self.longest
            else "the limit as long as no run has finished"
        )
        return (
            f"it was stopped because it had not finished after {duration(seconds)} ({rule}). "
            "If it needs more time, give run_minutes= (--run-minutes)."
        )


def _size(cell: Cell) -> tuple[int, int, bool]:
    return cell.steps, cell.batch, cell.probes


def _ratio(size: tuple[int, int, bool], known: tuple[int, int, bool]) -> float:
    """How many times as long as a known run another run may take; at least 1."""
    steps, batch = (max(1.0, mine / its) for mine, its in zip(size[:2], known[:2], strict=True))
    return steps * batch * (2 if size[2] and not known[2] else 1)
