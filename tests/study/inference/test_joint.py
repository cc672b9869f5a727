"""Levels that hold for several comparisons, beside SciPy's tests and published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from anynorm.study.inference.joint import many_to_one_level, range_level, t_quantile


# Dunnett 1964, table 1a: one-sided 5% points for equal groups.
@pytest.mark.parametrize(
    ("comparisons", "freedom", "critical"),
    [(1, 10, 1.81), (2, 10, 2.15), (5, 10, 2.56), (9, 10, 2.81), (2, 60, 1.95), (8, 60, 2.44)],
)
def test_close_to_dunnetts_table_and_on_the_safe_side(
    comparisons: int, freedom: float, critical: float
) -> None:
    ours = t_quantile(many_to_one_level([0.5] * comparisons, 0.05), freedom)
    assert critical - 0.01 <= ours <= 1.04 * critical


# Tables of the studentized range, 5% points, divided by the root of two.
@pytest.mark.parametrize(
    ("count", "freedom", "critical"), [(2, 10, 3.15), (3, 10, 3.88), (8, 10, 5.30), (8, 60, 4.44)]
)
def test_close_to_tukeys_table_and_on_the_safe_side(
    count: int, freedom: float, critical: float
) -> None:
    ours = t_quantile(range_level(count, 0.05), freedom)
    assert critical / math.sqrt(2) - 0.01 <= ours <= 1.08 * critical / math.sqrt(2)


def test_adjusted_p_values_are_those_of_scipys_dunnett() -> None:
    rng = np.random.default_rng(3)
    groups = rng.standard_normal((5, 6)) + np.array([[0.0], [1.5], [0.0], [2.0], [-1.0]])
    found = stats.dunnett(*groups[1:], control=groups[0], alternative="greater", rng=0)
    error = math.sqrt(2 * groups.var(axis=1, ddof=1).mean() / 6)
    for place, p in enumerate(found.pvalue, start=1):
        t = (groups[place].mean() - groups[0].mean()) / error
        level = many_to_one_level([0.5] * 4, float(np.clip(p, 1e-4, 0.9999)))
        assert t_quantile(level, 25) == pytest.approx(t, abs=0.08)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_joint_level_is_kept_for_normal_scores(share: float) -> None:
    rng = np.random.default_rng(0)
    common, own = rng.standard_normal((200_000, 1)), rng.standard_normal((200_000, 6))
    scores = math.sqrt(share) * common + math.sqrt(1 - share) * own
    critical = -stats.norm.ppf(many_to_one_level([share] * 6, 0.05))
    # Five deviations of a share of 5% in 200,000 draws.
    assert (scores.max(axis=1) > critical).mean() == pytest.approx(0.05, abs=0.0025)
