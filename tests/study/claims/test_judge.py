"""Judged statements: status, intervals, diverged runs, and words that say what was shown."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from anynorm.study.claims.judge import Judgement, Statement, judge

RANGE = Statement("{name} makes the loss vary less.", "loss range")
POINTS = Statement(
    "{name} is more accurate.",
    "accuracy",
    ("higher", "lower"),
    larger_is_better=True,
    unit="points",
    percent=True,
    margin=0.5,
)


def seeds(*values: float | None) -> dict[int, float | None]:
    return dict(enumerate(values))


def row(found: Judgement, name: str) -> dict[str, Any]:
    [cells] = [cells for cells in found.table["rows"] if cells[0] == name]
    return dict(zip(found.table["columns"], cells, strict=True))


NONE = seeds(4.0, 4.2, 3.9)


def test_a_smaller_quantity_is_shown_as_a_ratio_with_its_interval() -> None:
    found = judge({"none": NONE, "batch": seeds(1.0, 1.1, 0.95)}, RANGE)
    assert (found.status, found.statement) == ("shown", "Batch norm makes the loss vary less.")
    cells = row(found, "batch")
    assert cells["interval from"] < cells["reference / normalizer"] < cells["interval to"]
    assert cells["reference / normalizer"] == pytest.approx(4.0, rel=0.02)
    assert "4.0 times smaller (" in found.sentence
    assert cells["answer"] == "smaller"


def test_the_interval_is_that_of_logarithms_of_the_comparison() -> None:
    found = judge({"none": NONE, "batch": seeds(1.0, 1.1, 0.95)}, RANGE)
    [comparison] = found.comparisons
    assert comparison.low is not None
    assert row(found, "batch")["interval from"] == pytest.approx(math.exp(comparison.low))


@pytest.mark.parametrize(
    ("batch", "status"),
    [
        (seeds(9.0, 9.3, 8.8), "contradicted"),  # larger
        (seeds(4.0, 4.21, 3.9), "contradicted"),  # equal within 10%
        (seeds(1.0, 12.0, 4.0), "cannot tell"),
    ],
)
def test_other_statuses(batch: dict[int, float | None], status: str) -> None:
    assert judge({"none": NONE, "batch": batch}, RANGE).status == status


def test_differences_have_a_unit_and_a_sign() -> None:
    found = judge({"none": seeds(90.0, 90.4, 90.2), "batch": seeds(95.0, 95.3, 95.3)}, POINTS)
    assert found.status == "shown"
    assert "90.2% [90, 90.4]" in found.sentence
    assert "5 points higher (" in found.sentence
    worse = judge({"none": seeds(95.0, 95.3, 95.3), "batch": seeds(90.0, 90.4, 90.2)}, POINTS)
    assert worse.status == "contradicted"
    assert row(worse, "batch")["normalizer − reference, points"] == pytest.approx(-5)


def test_a_statement_of_equality_is_shown_by_equivalence() -> None:
    equal = Statement(
        "{name} is as good.",
        "loss",
        shown_by=("equivalent", "better"),
        contradicted_by=("harmful",),
    )
    assert judge({"none": NONE, "batch": seeds(4.0, 4.21, 3.9)}, equal).status == "shown"
    assert judge({"none": NONE, "batch": seeds(9.0, 9.3, 8.8)}, equal).status == "contradicted"


def test_a_diverged_run_counts_as_the_worst_and_leaves_no_interval() -> None:
    values = {"none": seeds(*[None] * 6), "batch": seeds(1.0, 1.1, 0.9, 1.2, 1.3, 1.0)}
    found = judge(values, RANGE)
    assert found.status == "shown"
    cells = row(found, "batch")
    assert cells["interval from"] == cells["interval to"] == "diverged in some runs"
    assert (
        row(found, "none")["geometric mean, or the median if some runs are diverged"] == "diverged"
    )
    assert "no ratio (diverged in some runs)" in found.sentence


def test_without_a_model_without_normalization_nothing_can_be_told() -> None:
    found = judge({"batch": NONE, "layer": NONE}, RANGE)
    assert (found.status, found.comparisons) == ("cannot tell", [])
    assert "No run without normalization has a value to compare with" in found.sentence
    alone = judge({"none": NONE}, RANGE)
    assert alone.status == "cannot tell"


def test_without_batch_norm_the_first_normalizer_is_judged() -> None:
    found = judge({"none": NONE, "rms": seeds(1.0, 1.1, 0.95), "layer": NONE}, RANGE)
    assert found.statement == "The normalizer rms makes the loss vary less."
    assert found.status == "shown"


def test_one_seed_cannot_tell() -> None:
    found = judge({"none": seeds(4.0), "batch": seeds(1.0)}, RANGE)
    assert found.status == "cannot tell"
    assert "with one seed this may be chance" in found.sentence
    assert row(found, "batch")["interval to"] == "one seed"


def test_a_normalizer_with_one_seed_does_not_keep_others_from_being_compared() -> None:
    values = {"none": NONE, "batch": seeds(1.0, 1.1, 0.95), "layer": seeds(3.0)}
    found = judge(values, RANGE)
    assert found.status == "shown"
    assert row(found, "layer")["answer"] == "too few seeds"


def test_zero_counts_as_the_smallest_value_that_was_seen() -> None:
    found = judge({"none": NONE, "batch": seeds(0.0, 0.01, 0.01)}, RANGE)
    assert found.status == "shown"
    assert row(found, "batch")["reference / normalizer"] == pytest.approx(403, rel=0.01)


def test_a_name_may_hold_braces() -> None:
    found = judge({"none": NONE, "{x}": NONE}, RANGE)
    assert found.statement == "The normalizer {x} makes the loss vary less."


def test_a_greek_letter_stays_what_it_is() -> None:
    found = judge({"none": NONE, "batch": NONE}, Statement("{name} is.", "η·β"))
    assert found.sentence.startswith("η·β without normalization")


def test_without_a_difference_a_statement_is_seldom_shown() -> None:
    rng = random.Random(0)
    shown = 0
    for _ in range(300):
        values = {
            name: seeds(*(math.exp(rng.gauss(0, 0.3)) for _ in range(3)))
            for name in ("none", "batch", "layer", "rms")
        }
        shown += judge(values, RANGE).status == "shown"
    # Of 300 studies 5% would be 15; three standard deviations more are 26.
    assert shown <= 26
