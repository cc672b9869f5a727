"""The interface of all engines, and the outcome of the cells that they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from anynorm.study.cell import Cell
from anynorm.study.store import Records

__all__ = ["Engine", "Failure", "Outcome", "Results", "run_cells"]

# Each finished cell, and why it gave no record; None if its record is stored.
Results = Generator[tuple[Cell, str | None], None, None]


class Engine(Protocol):
    """Runs cells somewhere: in processes here, on a Ray cluster, as Slurm jobs."""

    def run(self, cells: Iterable[Cell], store: Records) -> Results:
        """Run every cell, and yield it when its record is in `store` or it has finally failed.

        Closing the generator stops the running cells; the store never has an incomplete record.
        Raises `AnynormError` if no cell can run at all.
        """
        ...

    def close(self) -> None:
        """Release resources, such as a connection; it may be called twice."""
        ...


@dataclass(frozen=True)
class Failure:
    """A cell that gave no record, and why."""

    cell: Cell
    reason: str

    @property
    def run(self) -> str:
        """The cell in words."""
        cell = self.cell
        setting = f"lr {cell.lr:g}, init {cell.init:g}, batch {cell.batch}, {cell.placement}"
        return f"{cell.subject}, {cell.label} ({setting}, seed {cell.seed})"

    def __str__(self) -> str:
        return f"{self.run} failed:\n{self.reason}"


@dataclass
class Outcome:
    """The outcome of running cells."""

    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    late: bool = False


def run_cells(
    engine: Engine,
    cells: Iterable[Cell],
    store: Records,
    *,
    done: Callable[[Cell], None],
    deadline: float | None = None,
) -> Outcome:
    """Run every cell with `engine`, and call `done` for each one that is finished.

    A cell that raises, or is lost too often, becomes a `Failure`; other cells go on. Ctrl-C stops
    the running cells and keeps the finished ones. So does the first result after `deadline`, a time
    of `time.monotonic`.
    """
    outcome = Outcome()
    try:
        with closing(engine.run(cells, store)) as results:
            for cell, reason in results:
                if reason is not None:
                    outcome.failures.append(Failure(cell, reason))
                done(cell)
                if deadline is not None and time.monotonic() > deadline:
                    outcome.late = True
                    break
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome
