"""The errors that anynorm raises on bad input: each states the input, the rule and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AnynormError",
    "CollectiveError",
    "PatternError",
    "ShapeError",
    "UnknownNameError",
    "listed",
    "nearest",
]


class AnynormError(ValueError):
    """Base of every error that anynorm raises on bad input; a ``ValueError``."""


class PatternError(AnynormError):
    """A bracket pattern that cannot be read; the message shows it with a caret under the fault."""


class ShapeError(AnynormError, RuntimeError):
    """An input whose shape does not fit the normalizer it was given to.

    A `RuntimeError` too, because torch's own layers raise now one and now the other.
    """


class CollectiveError(AnynormError, RuntimeError):
    """A collective between processes that failed; the message names it and the layer.

    A `RuntimeError` too, which is what torch raises of a rank that is gone.
    """


class UnknownNameError(AnynormError):
    """A name that is not in the table it was looked up in; the message suggests the nearest."""

    def __init__(self, kind: str, name: str, names: Iterable[str]) -> None:
        known = sorted(names)
        listed = f"Known: {', '.join(known)}." if known else "There are none."
        super().__init__(f"there is no {kind} named {name!r}.{nearest(name, known)} {listed}")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``' Did you mean "x"?'`` for the known name closest to `name`, or ``''``.

    >>> nearest("bacth", ["batch", "layer"])
    ' Did you mean "batch"?'
    """
    close = get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else ""


def listed(names: Iterable[object], most: int = 6) -> str:
    """Return the names, quoted; of many only the first, and the number of the others.

    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    shown = [repr(name) for name in names]
    others = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + others
