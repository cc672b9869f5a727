"""A mean over seeds with its confidence interval, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anynorm.study.inference import LEVEL, Comparison
from anynorm.study.inference.joint import t_quantile
from anynorm.study.spread import finite

__all__ = [
    "Interval",
    "cells",
    "interval",
    "interval_text",
    "number_cells",
]


class Interval(NamedTuple):
    """A mean over seeds; each end holds with 95% confidence. With one seed the ends are None."""

    mean: float
    low: float | None
    high: float | None


def interval(values: Sequence[float | None]) -> Interval | None:
    """Return the mean of `values` with Student's interval; None if a value is missing.

    A missing value is a run that diverged, and the mean of the other runs would be too good.

    >>> interval([1.0, 2.0, 3.0]).mean, interval([1.0, None])
    (2.0, None)
    """
    known = [value for value in map(finite, values) if value is not None]
    if not known or len(known) < len(values):
        return None
    mean = float(np.mean(known))
    if len(known) == 1:
        return Interval(mean, None, None)
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known))
    half = t_quantile(LEVEL, len(known) - 1) * error
    return Interval(mean, mean - half, mean + half)


def cells(found: Interval | None, lost: str = "diverged") -> list[float | str]:
    """Return mean and ends as the cells of a table; `lost` says why there is no number.

    >>> cells(None), cells(Interval(2.0, None, None))
    (['diverged', 'diverged', 'diverged'], [2.0, 'one seed', 'one seed'])
    """
    if found is None:
        return [lost] * 3
    return [found.mean, *("one seed" if end is None else end for end in found[1:])]


def interval_text(
    found: Interval | None,
    digits: int = 1,
    *,
    sign: bool = False,
    unit: str = "",
    lost: str = "diverged",
) -> str:
    """Return a mean with its interval as text; `lost` says why there is no mean.

    >>> interval_text(Interval(-2.04, -2.5, -1.5), unit="%"), interval_text(None)
    ('−2.0% (−2.5 to −1.5)', 'diverged')
    """
    if found is None:
        return lost
    mean, *ends = [_rounded(value, digits, sign) for value in found if value is not None]
    return f"{mean}{unit} ({ends[0]} to {ends[1]})" if ends else f"{mean}{unit}"


def number_cells(found: Comparison) -> list[float | str]:
    """Return the difference of a comparison and its ends as the cells of a table."""
    why = "one seed" if found.test.startswith("none") else "diverged"
    numbers = (found.difference, found.low, found.high)
    return [why if number is None else number for number in numbers]


def _rounded(value: float, digits: int, sign: bool) -> str:
    # Adding zero turns the negative zero that rounding leaves into a plain one.
    rounded = round(value, digits) + 0.0
    text = f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"
    return text.replace("-", "−")
