"""Progress on standard error: a bar on a terminal, otherwise lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["harmless", "say", "steps"]


def say(line: str) -> None:
    """Print a line on standard error."""
    print(f"anynorm: {line}", file=sys.stderr, flush=True)


def harmless(function: Callable[..., None], *values: Any) -> None:
    """Call `function` and ignore its errors: a closed terminal must not stop the work.

    >>> harmless(int, "no number")
    """
    try:
        function(*values)
    except Exception:
        return


@contextmanager
def steps(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` steps are done; yields a function to call with those just done.

    Args:
        name: what is done.
        total: the number of steps; None if it is not known.
    """
    shown = _Bar(name, total) if sys.stderr and sys.stderr.isatty() else _Lines(name, total)
    harmless(shown.begin)
    try:
        yield lambda done: harmless(shown.advance, done)
    finally:
        harmless(shown.end)


class _Lines:
    """A line for each tenth."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total, self.done, self.tenths = name, total, 0, 0

    def begin(self) -> None:
        say(f"{self.name} ...")

    def advance(self, done: int) -> None:
        self.done += done
        tenths = 10 * self.done // self.total if self.total else 0
        if tenths > self.tenths:
            self.tenths = tenths
            say(f"{self.name}: {10 * tenths}%")

    def end(self) -> None:
        pass


class _Bar:
    """A bar that grows with the steps; without their number, one that moves."""

    def __init__(self, name: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True))
        self.task = self.bar.add_task(name, total=total)

    def begin(self) -> None:
        self.bar.start()

    def advance(self, done: int) -> None:
        self.bar.advance(self.task, done)

    def end(self) -> None:
        self.bar.stop()
