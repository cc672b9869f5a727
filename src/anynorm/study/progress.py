"""The live progress bar, on the standard error stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anynorm.study.cell import Cell

__all__ = ["bar"]


@contextmanager
def bar(total: int, *, shown: bool) -> Iterator[Callable[[Cell], None]]:
    """Show a bar for `total` runs with the time left; yields what to call after each run."""
    if not (shown and total):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("time left"),
        # Runs differ in length: a long memory makes the estimate steady.
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, speed_estimate_period=120) as progress:
        task = progress.add_task("training", total=total)
        yield lambda cell: progress.update(task, advance=1, description=cell.label[:40])
