"""The outcomes of one normalizer: one value for each seed, and those of held-out items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Sample"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One value for each seed, where larger is better and None is a run that diverged.

    Args:
        name: the name of the sample in a comparison, such as a normalizer.
        values: the outcomes, in the unit of the reported differences.
        seeds: the seed of each outcome; samples with the same seeds can be compared as pairs.
            By default 0, 1, 2, ...
        items: the outcome of each held-out item in the runs that finished, of shape (runs, items),
            in the same unit. None if only the values are known.

    Example:
        >>> Sample("batch", [97.5, 98.0, None]).diverged
        1
    """

    name: str
    values: Sequence[float | None]
    seeds: Sequence[int] = ()
    items: Array | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = [v if v is not None and math.isfinite(v) else None for v in self.values]
        object.__setattr__(self, "values", tuple(values))
        object.__setattr__(self, "seeds", tuple(self.seeds) or tuple(range(len(values))))

    @property
    def diverged(self) -> int:
        """The number of runs that diverged."""
        return self.values.count(None)

    @property
    def finite(self) -> Array:
        """The values of the runs that did not diverge."""
        return np.array([value for value in self.values if value is not None], dtype=float)

    @property
    def middle(self) -> float | None:
        """The mean, or the median if runs diverged; None if the median run diverged."""
        if not self.diverged:
            return float(self.finite.mean()) if self.values else None
        ordered = sorted(-math.inf if value is None else value for value in self.values)
        middle = float(np.median(ordered)) if ordered else math.nan
        return middle if math.isfinite(middle) else None
