"""Damaged records: what is left out of them, and that it is said."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from synthetic_records import record

from anynorm.report import html
from anynorm.study.evidence import build
from anynorm.study.readable import Fault, readable


def damaged(path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(record(probes=True))
    *way, last = path.split(".")
    part: Any = made
    for name in way:
        part = part[name]
    part[last] = value
    return made


def test_a_whole_record_is_as_it_was() -> None:
    for made in (
        record(probes=True),
        record(status="diverged", probes=True),
        record(task="regression"),
    ):
        found = readable([made])
        assert found.records == [made]
        assert not found.faults


def test_what_was_read_is_not_read_again() -> None:
    [once] = readable([record()]).records
    assert readable([once]).records[0] is once


@pytest.mark.parametrize("part", ["curve", "evaluations", "cost", "items", "environment"])
@pytest.mark.parametrize("value", ["text", 3, [1], True])
def test_a_part_of_a_wrong_type_is_left_out(part: str, value: Any) -> None:
    found = readable([damaged(part, value)])
    assert part not in found.records[0]
    assert found.faults == {Fault(part, "it is not a mapping"): 1}


@pytest.mark.parametrize("part", ["curve", "evaluations", "cost", "items", "environment", "probes"])
def test_a_part_that_is_absent_or_none_is_no_fault(part: str) -> None:
    made = record(probes=True)
    assert not readable([{**made, part: None}]).faults
    made.pop(part, None)
    assert not readable([made]).faults


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200, 10**400])
def test_numbers_beyond_all_measure_are_none(value: float) -> None:
    [found] = readable([damaged("final.train_loss", value)]).records
    assert found["final"]["train_loss"] is None
    [found] = readable([damaged("curve.train_loss", [1.0, value, 2])]).records
    assert found["curve"]["train_loss"] == [1.0, None, 2]


def test_rows_whose_step_does_not_rise_are_left_out() -> None:
    units = damaged("probes.units.step", [0, 5, 5, None, 3, 9])["probes"]["units"]
    percentiles = units["percentiles"]["p50"]
    [found] = readable([damaged("probes.units.step", [0, 5, 5, None, 3, 9])]).records
    assert found["probes"]["units"]["step"] == [0, 5, 9]
    kept = found["probes"]["units"]
    assert kept["percentiles"]["p50"] == [percentiles[0], percentiles[1], percentiles[5]]
    assert kept["layers"] == units["layers"]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("cell", {"subject": 3}),
        ("cell", "text"),
        ("status", "fine"),
        ("status", ["ok"]),
        ("task", math.nan),
        ("final.test_accuracy", "text"),
        ("final", {}),
    ],
)
def test_without_what_a_run_is_or_gave_it_is_left_out_and_the_report_says_so(
    part: str, value: Any
) -> None:
    good = [record(seed=seed) for seed in range(2)]
    found = build([*good, damaged(part, value)], title="t", command="c")
    assert found["studies"][0]["runs"] == 2
    [row] = [row for row in found["unread"] if "left out" in row["why"]]
    assert row["runs"] == 1
    assert part in row["part"]
    assert f"{row['part']} of 1 run:" in html.page(found)


def test_a_fault_counts_once_for_each_run() -> None:
    rows = [["text"], ["text"]]
    found = readable([damaged("probes.flow.ratio", rows) for _ in range(3)])
    assert found.faults == {Fault("probes.flow.ratio", "it is not a number"): 3}
