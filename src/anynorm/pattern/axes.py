"""The names that axes can have."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AXES", "CHANNELS", "ELLIPSIS", "Axes", "Part"]

AXES: dict[str, str] = {
    "n": "samples",
    "c": "channels",
    "g": "groups of channels",
    "k": "parts of the batch",
    "l": "positions",
    "t": "time",
    "d": "depth",
    "h": "height",
    "w": "width",
    "o": "output units of a weight",
    "i": "inputs of a weight",
}
ELLIPSIS = "..."
CHANNELS = ("c", "o")  # where γ lives


@dataclass(frozen=True)
class Part:
    """A named axis, or a part of one that parentheses split.

    Args:
        name: the name, a key of ``AXES`` or "...".
        shared: whether it is in brackets.

    Example:
        >>> from anynorm.pattern import Pattern
        >>> [part.name for part in Pattern.parse("n (g [c])").parts if part.shared]
        ['c']
    """

    name: str
    shared: bool


# For each axis of an input, its parts: one, unless parentheses split it.
Axes = tuple[tuple[Part, ...], ...]
