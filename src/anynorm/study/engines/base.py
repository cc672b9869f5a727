"""What every engine shares: its interface, and what becomes of the cells it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from anynorm.study.cell import Cell
from anynorm.study.store import Records

__all__ = ["Engine", "Failure", "Outcome", "Results", "run_cells"]

# Each cell that is done with, and why it gave no record: None for one whose record is stored.
Results = Generator[tuple[Cell, str | None], None, None]


class Engine(Protocol):
    """Runs cells somewhere: in processes here, on a Ray cluster, as Slurm jobs."""

    def run(self, cells: Iterable[Cell], store: Records) -> Results:
        """Run every cell, and yield it when its record is in `store` or it has failed for good.

        Closing the generator stops the cells at work; nothing is left half in the store. Raises
        `AnynormError` when no cell can run at all.
        """
        ...

    def close(self) -> None:
        """Let go of what was kept between runs, such as a connection; it may be called twice."""
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
    """What became of the cells that were run."""

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

    A cell that raises, or is lost too often, is a `Failure` and stops nothing else. Ctrl-C stops
    the cells at work and keeps what is finished; so does the first result after `deadline`, a
    time of `time.monotonic`.
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
