"""Saturated and dead units at several initial weights."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import record, saturation

from anynorm.study.claims.question import ask
from anynorm.study.claims.saturation import QUESTIONS
from anynorm.study.selection import studies


def claim(records: list[dict[str, Any]]) -> dict[str, Any]:
    [runs] = studies(records)
    return ask(QUESTIONS[0], runs)


def test_each_initialization_has_its_panel_and_its_sentence() -> None:
    found = claim(saturation())
    assert [panel["title"] for panel in found["figure"]["panels"]] == [
        "saturated, % of values, initial weights × 1",
        "saturated, % of values, initial weights × 100",
    ]
    assert (
        "initial weights × 100, from the first to the last measurement: none 55.0%"
        in (found["sentence"])
    )
    assert ", accuracy " in found["sentence"]


def test_intervals_stand_in_the_table() -> None:
    table = claim(saturation())["tables"][0]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    none = next(r for r in rows if r["normalizer"] == "none" and r["initial weights ×"] == 100)
    assert none["first, %: mean"] == pytest.approx(55)
    assert none["last, %: low"] == pytest.approx(55)


def test_without_saturating_activations_dead_units_are_told() -> None:
    found = claim([record(norm=n, seed=s, probes=True) for n in ("none", "batch") for s in (0, 1)])
    assert found["sentence"].startswith("Dead units, from the first to the last measurement: none")


def test_without_probes_the_claim_is_missing() -> None:
    assert claim([record()])["missing"].startswith("no probed layer")
