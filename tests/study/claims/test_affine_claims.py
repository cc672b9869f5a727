"""What γ and β are, and what is lost without them."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import record

from anynorm.study.claims.affine import QUESTIONS
from anynorm.study.claims.question import ask
from anynorm.study.selection import studies

SEEDS = range(3)


def claims(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    [runs] = studies(records)
    return [ask(question, runs) for question in QUESTIONS]


def base(**options: Any) -> list[dict[str, Any]]:
    return [
        record(norm=n, seed=s, probes=True, **options) for n in ("none", "batch") for s in SEEDS
    ]


def fixed(accuracy: float) -> list[dict[str, Any]]:
    return [
        record(affine=False, seed=s, final={"test_accuracy": accuracy + 0.001 * s}) for s in SEEDS
    ]


def test_measured_moments_are_beside_their_parameters() -> None:
    moments, _ = claims(base())
    assert [panel["title"] for panel in moments["figure"]["panels"]] == [
        "mean of the output against β",
        "deviation against |γ|",
    ]
    rows = moments["tables"][0]["rows"]
    assert [row[:4] for row in rows] == [
        ["batch", "mean of the output against β", 3, 60],
        ["batch", "deviation against |γ|", 3, 60],
    ]
    assert all(row[4] > 0.999 for row in rows)
    assert rows[0][5] == pytest.approx(1e-7, rel=1e-3)


def test_a_curve_has_few_points_in_order() -> None:
    curve = claims(base())[0]["figure"]["panels"][0]["series"]["batch"]
    assert len(curve["x"]) == 48
    assert curve["x"] == sorted(curve["x"])


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        (0.80, "The result is worse"),
        (0.999, "The result is better"),
        (0.975, "The result is equivalent"),
    ],
)
def test_what_is_lost_is_judged(accuracy: float, words: str) -> None:
    records = [record(seed=s, final={"test_accuracy": 0.977 - 0.001 * s}) for s in SEEDS]
    _, lost = claims([*records, *fixed(accuracy)])
    assert lost["sentence"].startswith(words)
    assert "batch, no γ β" in lost["sentence"]


def test_without_the_runs_the_claims_are_missing() -> None:
    moments, lost = claims([record(norm=n) for n in ("none", "batch")])
    assert moments["missing"].startswith("no run of batch norm")
    assert lost["missing"] == "batch norm was not trained with γ and β fixed."
