"""What the data could not show: a layer that a check looked at and cannot call healthy."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Undecided"]


@dataclass(frozen=True)
class Undecided:
    """A layer whose data are too few for a check, with what could have been seen there.

    Args:
        check: the number of the check.
        name: its name.
        layer: the name of the layer.
        message: what could have been seen.

    Example:
        >>> print(Undecided(1, "running mean", "bn1", "8 samples: shifts below 2 σ are not seen"))
        1 (running mean) cannot tell at 'bn1': 8 samples: shifts below 2 σ are not seen
    """

    check: int
    name: str
    layer: str
    message: str

    def __str__(self) -> str:
        return f"{self.check} ({self.name}) cannot tell at {self.layer!r}: {self.message}"
