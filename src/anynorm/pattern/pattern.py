"""The parsed pattern."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from anynorm.errors import PatternError
from anynorm.pattern.axes import Axes, Part
from anynorm.pattern.parser import read
from anynorm.pattern.resolved import ResolvedPattern, resolve

__all__ = ["Pattern"]

# A plain dictionary: torch.compile traces through it, and warns about functools.cache.
_PLANS: dict[tuple[str, int], ResolvedPattern] = {}


@dataclass(frozen=True)
class Pattern:
    """A parsed bracket pattern; get one from :meth:`parse`, which caches.

    Args:
        text: the text that was read.
        axes: the parts of each axis.

    Example:
        >>> pattern = Pattern.parse("n (g [c]) [...]")
        >>> sorted(pattern.shared)
        ['...', 'c']
        >>> pattern.plan(4).dims
        (2, 3, 4)
    """

    text: str
    axes: Axes

    @staticmethod
    def parse(text: str) -> Pattern:
        """Read a pattern.

        Args:
            text: the axes, such as ``"[n] c [...]"``; those in brackets share one μ and σ.

        Returns:
            The pattern.

        Raises:
            PatternError: The text is not a valid pattern; the message has a caret under the fault.
        """
        if not isinstance(text, str):
            raise PatternError(
                f"the pattern is of type {type(text).__name__}; it must be text that names the "
                "axes. Give one such as '[n] c [...]'."
            )
        return _parse(text)

    def __str__(self) -> str:
        return self.text

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts from left to right."""
        return tuple(part for axis in self.axes for part in axis)

    @property
    def shared(self) -> frozenset[str]:
        """The names in brackets: the axes over which μ and σ are taken."""
        return frozenset(part.name for part in self.parts if part.shared)

    def plan(self, rank: int) -> ResolvedPattern:
        """Resolve the pattern for inputs of one rank.

        Args:
            rank: the number of axes.

        Returns:
            The plan; plans are cached.

        Raises:
            ShapeError: No input of this rank fits the pattern.
        """
        key = (self.text, rank)
        if key not in _PLANS:
            _PLANS[key] = resolve(self.text, self.axes, rank)
        return _PLANS[key]


@lru_cache(maxsize=1024)
def _parse(text: str) -> Pattern:
    return Pattern(" ".join(text.split()), read(text))
