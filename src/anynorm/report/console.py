"""The console for tables."""

from __future__ import annotations

import os
import sys

from rich.console import Console

__all__ = ["console"]

_PIPE = 80


def console() -> Console:
    """Return the standard output, as wide as its terminal; 80 columns if it is a pipe or file.

    rich alone would take the width of any terminal, be it that of the standard input.  The
    variable ``COLUMNS`` sets another width.

    >>> console().width >= 1
    True
    """
    chosen = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if chosen else _PIPE)
