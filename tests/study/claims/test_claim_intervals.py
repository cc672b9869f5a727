"""Means with intervals, as claims say them."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from anynorm.study.claims.intervals import Interval, interval, interval_text


def test_each_end_of_an_interval_holds_with_95_percent() -> None:
    values = [1.0, 2.0, 4.0, 5.0]
    found = interval(values)
    expected = stats.t.interval(0.9, 3, loc=3.0, scale=stats.sem(values))
    assert found == pytest.approx((3.0, *expected))


def test_a_missing_value_leaves_no_mean() -> None:
    assert interval([1.0, None]) is None
    assert interval([1.0, math.nan]) is None
    assert interval([]) is None
    assert interval([1.0]) == Interval(1.0, None, None)


def test_words() -> None:
    assert interval_text(Interval(1.0, None, None), 2, sign=True) == "+1.00"
    assert interval_text(Interval(-0.01, -0.02, 0.04)) == "0.0 (0.0 to 0.0)"
