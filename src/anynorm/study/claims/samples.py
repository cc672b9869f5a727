"""What the seeds of a claim say: samples to compare, means with intervals, both in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anynorm.study import wording
from anynorm.study.inference import LEVEL, Comparison, Sample
from anynorm.study.inference.joint import t_quantile
from anynorm.study.samples import items_of
from anynorm.study.spread import Record, Score, finite

__all__ = [
    "Interval",
    "cells",
    "difference_text",
    "interval",
    "interval_text",
    "margin",
    "number_cells",
    "sample",
    "scaled",
    "unit",
]

# Differences within the margin count as none: half a point of accuracy, or a tenth of the loss.
_E = math.log(10)  # natural logarithms in a decade
_POINTS, _DECADES = 0.5, math.log10(1.1)


def unit(score: Score) -> str:
    """Return the unit in which differences of a score are said."""
    return "points" if score.higher_is_better else "decades of loss"


def margin(score: Score) -> float:
    """Return the difference that counts as none, in that unit."""
    return _POINTS if score.higher_is_better else _DECADES


def scaled(value: float | None, score: Score) -> float | None:
    """Return a score in its unit, where more is better: points, or decades below a loss of 1."""
    if value is None:
        return None
    if score.higher_is_better:
        return 100 * value
    return -math.log10(value) if value > 0 else None


def sample(name: str, records: Sequence[Record], score: Score) -> Sample:
    """Return the scores of runs as a sample to compare; diverged runs are censored."""
    values = [scaled(score.value(record), score) for record in records]
    items = items_of(records, score) if score.higher_is_better else None
    return Sample(name, values, [record["cell"]["seed"] for record in records], items)


class Interval(NamedTuple):
    """A mean over seeds; each end holds with 95% confidence. One seed has no ends."""

    mean: float
    low: float | None
    high: float | None


def interval(values: Sequence[float | None]) -> Interval | None:
    """Return the mean of `values` with Student's interval; None if a value is missing.

    A missing value is a run that diverged, and a mean of those that are left would be too good.

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


def cells(found: Interval | None) -> list[float | str]:
    """Return mean and ends as the cells of a table, with words where there is no number.

    >>> cells(None), cells(Interval(2.0, None, None))
    (['diverged', 'diverged', 'diverged'], [2.0, 'one seed', 'one seed'])
    """
    if found is None:
        return ["diverged"] * 3
    return [found.mean, *("one seed" if end is None else end for end in found[1:])]


def interval_text(
    found: Interval | None, digits: int = 1, *, sign: bool = False, unit: str = ""
) -> str:
    """Return a mean with its interval in words.

    >>> interval_text(Interval(2.04, 1.5, 2.5), unit="%"), interval_text(None)
    ('2.0% (1.5 to 2.5)', 'diverged')
    """
    if found is None:
        return "diverged"
    mean, *ends = [_rounded(value, digits, sign) for value in found if value is not None]
    return f"{mean}{unit} ({ends[0]} to {ends[1]})" if ends else f"{mean}{unit}"


def difference_text(found: Comparison, unit: str) -> str:
    """Return the difference of a comparison in words, with its interval if it has one.

    >>> difference_text(Comparison("a", "b", "accuracy", "better", 2.0, 1.0, 3.0, ""), "points")
    '+2.0 points (+1.0 to +3.0)'
    >>> loss = Comparison("a", "b", "loss", "better", 0.301, 0.176, 0.477, "")
    >>> difference_text(loss, "decades of loss")
    'a loss 2.00 times lower (1.50 to 3.0 times)'
    """
    if found.difference is None:
        return "no difference that is a number, since runs diverged"
    if unit == "points":
        shown = Interval(found.difference, found.low, found.high)
        return interval_text(shown, sign=True, unit=f" {unit}")
    words = ("lower", "higher")
    size = wording.difference_text(_E * found.difference, "", words)
    if found.low is None or found.high is None:
        return f"a loss {size}"
    return f"a loss {size} ({wording.interval_text(_E * found.low, _E * found.high, '', words)})"


def number_cells(found: Comparison) -> list[float | str]:
    """Return the difference of a comparison and its ends as the cells of a table."""
    why = "one seed" if found.test.startswith("none") else "diverged"
    numbers = (found.difference, found.low, found.high)
    return [why if number is None else number for number in numbers]


def _rounded(value: float, digits: int, sign: bool) -> str:
    # Adding zero turns the negative zero that rounding leaves into a plain one.
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"
