"""The permutation test of ranks for samples in which runs diverged."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from anynorm.study.inference.permutation import p_values
from anynorm.study.inference.sample import Sample


def test_two_samples_are_enumerated() -> None:
    lost, found = Sample("none", [None] * 3), Sample("batch", [1.0, 2.0, 3.0])
    assert p_values([lost, found], [(1, 0)]) == [pytest.approx(1 / comb(6, 3))]
    assert p_values([lost, found], [(0, 1)]) == [1.0]


def test_only_the_order_counts() -> None:
    a, b = Sample("a", [None, 1.0, 2.0, 3.0]), Sample("b", [2.5, 4.0, 5.0, 6.0])
    stretched = Sample("b", [2.5, 40.0, 500.0, 6000.0])
    assert p_values([a, b], [(1, 0)]) == p_values([a, stretched], [(1, 0)])


def test_a_sample_that_always_diverges_is_worse_than_many_that_never_do() -> None:
    rng = np.random.default_rng(0)
    samples = [Sample("none", [None] * 5)]
    samples += [Sample(str(k), rng.standard_normal(5)) for k in range(5)]
    assert max(p_values(samples, [(k, 0) for k in range(1, 6)])) < 0.05


def test_the_error_is_kept_whatever_diverges() -> None:
    rng = np.random.default_rng(0)
    wrong, studies = 0, 200
    for _ in range(studies):
        values = rng.standard_exponential((4, 4))
        lost = rng.random((4, 4)) < 0.4
        rows = np.where(lost, np.nan, values)
        samples = [Sample(str(k), list(row)) for k, row in enumerate(rows)]
        wrong += min(p_values(samples, [(k, 0) for k in range(1, 4)])) <= 0.05
    # Three deviations above 5% of 200.
    assert wrong <= 10 + 3 * np.sqrt(200 * 0.05 * 0.95)
