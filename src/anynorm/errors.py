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
    "type_of",
    "with_article",
]


class AnynormError(ValueError):
    """Base of every error that anynorm raises on bad input; a ``ValueError``.

    Example:
        >>> issubclass(AnynormError, ValueError)
        True
    """


class PatternError(AnynormError):
    """A bracket pattern that cannot be read.

    The message shows it with a caret under the fault.

    Example:
        >>> from anynorm.pattern import Pattern
        >>> Pattern.parse("[n] c [")
        Traceback (most recent call last):
            ...
        anynorm.errors.PatternError: this bracket is never closed: ...
    """


class ShapeError(AnynormError, RuntimeError):
    """An input whose shape does not fit the normalizer.

    It is also a `RuntimeError`, because torch's layers raise either of the two.

    Example:
        >>> issubclass(ShapeError, (AnynormError, RuntimeError))
        True
    """


class CollectiveError(AnynormError, RuntimeError):
    """A collective between processes failed; the message names the collective and the layer.

    It is also a `RuntimeError`, which torch raises if a rank is gone.

    Example:
        >>> issubclass(CollectiveError, (AnynormError, RuntimeError))
        True
    """


class UnknownNameError(AnynormError):
    """A name that is not in its table.

    The message suggests the nearest.

    Args:
        kind: the kind of names in the table, such as "activation".
        name: the name.
        names: the known names.

    Example:
        >>> print(UnknownNameError("scale", "stdd", ["std", "rms"]))
        there is no scale named 'stdd'. Did you mean "std"? Known: rms, std.
    """

    def __init__(self, kind: str, name: str, names: Iterable[str]) -> None:
        known = sorted(names)
        listed = f"Known: {', '.join(known)}." if known else "There are none."
        super().__init__(f"there is no {kind} named {name!r}.{nearest(name, known)} {listed}")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a question that suggests the closest known name.

    Args:
        name: the unknown name.
        names: the known names.

    Returns:
        ``' Did you mean "x"?'`` for the one closest to `name`, or ``''``.

    Example:
        >>> nearest("bacth", ["batch", "layer"])
        ' Did you mean "batch"?'
    """
    close = get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else ""


def with_article(kind: str) -> str:
    """Return the name of a class with its article.

    Args:
        kind: the name.

    Returns:
        The text.

    Example:
        >>> with_article("int"), with_article("Linear"), with_article("UNet")
        ('an int', 'a Linear', 'a UNet')
    """
    return f"{'an' if kind[:1].lower() in 'aeio' else 'a'} {kind}"


def type_of(value: object) -> str:
    """Return the name of a value's class with its article.

    Args:
        value: the value.

    Returns:
        The text.

    Example:
        >>> type_of(5), type_of([])
        ('an int', 'a list')
    """
    return with_article(type(value).__name__)


def listed(names: Iterable[object], most: int = 6) -> str:
    """Return quoted names for a message: the first ones, and the number of the others.

    Args:
        names: the names.
        most: the largest number of names to write out.

    Returns:
        The text.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        "'a', 'b' and 1 more"
    """
    shown = [repr(name) for name in names]
    others = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + others
