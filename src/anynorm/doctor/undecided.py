"""A layer that a check examined, but for which it has too few data to call it healthy."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Undecided"]


@dataclass(frozen=True)
class Undecided:
    """A layer with too few data for a check, and the deviations that could not be found.

    Args:
        check: the number of the check.
        name: its name.
        layer: the name of the layer.
        message: which deviations could not be found.

    Example:
        >>> print(Undecided(1, "running mean", "bn1", "8 samples: shifts below 2 σ are not found"))
        1 (running mean) cannot tell at 'bn1': 8 samples: shifts below 2 σ are not found
    """

    check: int
    name: str
    layer: str
    message: str

    def __str__(self) -> str:
        return f"{self.check} ({self.name}) cannot tell at {self.layer!r}: {self.message}"
