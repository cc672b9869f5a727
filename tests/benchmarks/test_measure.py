"""One case from end to end, and the memory that layers keep."""

import sys
from dataclasses import replace

import pytest
import torch
from benchmarks import __main__, results
from benchmarks.cases import CASES, Case, select
from benchmarks.kept import kept
from benchmarks.layers import inputs, theirs
from benchmarks.measure import measure
from benchmarks.timing import Budget

SHORT = Budget(seconds=0.0, fewest=2, most=2, per_round=0.0)


def test_a_row_has_all_that_is_reported():
    cases = [
        Case("batch", "contiguous", (2, 3, 4, 4), "fp32", "relu", p) for p in ("forward", "both")
    ]
    rows = list(measure(cases, ("eager",), SHORT))
    assert [row["phase"] for row in rows] == ["forward", "both"]
    assert set(rows[0]["us"]) == {"ours", "eager", "copy"}
    assert set(rows[0]["copies"]) == {"ours", "eager"}
    assert set(rows[0]["ratio"]) == {"eager"}
    assert rows[0]["rounds"] == 2
    assert rows[0]["input_bytes"] == 2 * 3 * 4 * 4 * 4


def test_evaluation_is_timed_in_evaluation():
    case = Case("batch", "channels_last", (2, 3, 4, 4), "fp32", "add+relu", "evaluation")
    (row,) = measure([case], ("eager", "compile"), SHORT)
    assert row["kept"] == {}
    assert set(row["ratio"]) == {"eager"}


def test_what_torchs_batch_norm_and_relu_keep():
    case = Case("batch", "contiguous", (2, 3, 4, 4), "fp32", "relu", "both")
    given = inputs(case)
    found = kept(theirs(case), given)
    statistics = 2 * 3 * 4
    assert found == {"bytes": 2 * given.x.nbytes + statistics, "x": given.x.nbytes}


def test_what_is_compiled_and_what_is_not(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda layer, **_: seen.append(layer) or layer)
    big, small = (
        Case("layer", "contiguous", s, "fp32", "plain", "both") for s in ((500, 200), (5, 4))
    )
    rows = list(measure([big, small], ("eager", "compile"), SHORT))
    assert ["compile" in row["ratio"] for row in rows] == [True, False]
    assert len(seen) == 1


@pytest.mark.slow
def test_the_command_writes_both_settings(tmp_path, monkeypatch):
    arguments = ["--only", "layer/.*/7x5/.*both", "--seconds", "0.01", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, "--peers", "eager"])
    __main__.main()
    found = [results.read(path) for path in sorted(tmp_path.iterdir())]
    assert "default" in [result["about"]["allocator"] for result in found]
    assert [[case["name"] for case in result["cases"]] for result in found] == [
        [case.name for case in select(CASES, arguments[1])]
    ] * len(found)


def test_setups_with_another_phase_are_the_same_input():
    case = CASES[0]
    assert replace(case, phase="both").setup == case.setup
