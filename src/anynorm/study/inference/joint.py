"""Quantiles that hold for several comparisons together.

Each comparison has its own t statistic and degrees of freedom. Its distribution transforms it to a
normal score, and the scores are treated as jointly normal. With equal spreads the result agrees
with Dunnett's and Tukey's tests up to a small error on the safe side
(`tests/study/inference/test_joint.py` compares them with SciPy's). Unlike these tests it allows a
different spread for each comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special, stats
from scipy.optimize import brentq

__all__ = ["many_to_one_level", "range_level", "t_quantile"]

# Nodes and weights that integrate over a standard normal variable.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def many_to_one_level(shares: Sequence[float], level: float) -> float:
    """Return the level of each one-sided comparison with a control, for `level` in all together.

    Args:
        shares: for each comparison, the part of its variance that comes from the control. The
            larger the parts, the more the comparisons depend on each other.
        level: the probability that any of the comparisons is wrong.

    Example:
        >>> round(many_to_one_level([0.5], 0.05), 4)
        0.05
        >>> 0.05 / 7 < many_to_one_level([0.5] * 7, 0.05) < 0.05
        True
    """
    # Rounding lets studies of the same shape share a cached solution.
    return _solve(tuple(sorted(round(min(share, 0.99), 2) for share in shares)), level)


@lru_cache(maxsize=4096)
def _solve(shares: tuple[float, ...], level: float) -> float:
    share = np.array(shares)[:, None]
    common, own = np.sqrt(share) * _NODES, np.sqrt(1 - share)

    def excess(score: float) -> float:
        below = special.ndtr((score - common) / own).prod(axis=0)
        return float(below @ _WEIGHTS) - (1 - level)

    return float(special.ndtr(-brentq(excess, -2.0, 12.0)))


@lru_cache(maxsize=256)
def range_level(count: int, level: float) -> float:
    """Return the level of each one-sided comparison, for `level` in all pairs of `count` together.

    Example:
        >>> round(range_level(2, 0.05), 4)
        0.025
    """
    score = stats.studentized_range.ppf(1 - level, count, np.inf) / math.sqrt(2)
    return float(special.ndtr(-score))


def t_quantile(level: float, freedom: float) -> float:
    """Return the value that Student's t exceeds with probability `level`."""
    return -float(special.stdtrit(freedom, level))
