"""Samples, margins and intervals of the claims."""

from __future__ import annotations

import math

import pytest
from scipy import stats
from synthetic_records import record

from anynorm.study.claims.samples import (
    Interval,
    difference_text,
    interval,
    interval_text,
    margin,
    sample,
    scaled,
)
from anynorm.study.inference import Comparison
from anynorm.study.spread import ACCURACY, LOSS


def test_more_is_better_in_both_units() -> None:
    assert scaled(0.9, ACCURACY) == pytest.approx(90)
    assert scaled(0.01, LOSS) == pytest.approx(2)
    assert scaled(None, LOSS) is None
    assert scaled(0.0, LOSS) is None
    assert margin(LOSS) == pytest.approx(math.log10(1.1))


def test_a_sample_keeps_seeds_and_censors_diverged_runs() -> None:
    records = [record(seed=4, final={"test_accuracy": 0.5}), record(seed=7, status="diverged")]
    found = sample("batch", records, ACCURACY)
    assert (found.values, found.seeds) == ((50.0, None), (4, 7))


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
    lost = Comparison("a", "b", "accuracy", "better", None, None, None, "")
    assert "diverged" in difference_text(lost, "points")
    single = Comparison("a", "b", "accuracy", "cannot tell", 2.0, None, None, "")
    assert difference_text(single, "points") == "+2.0 points"
