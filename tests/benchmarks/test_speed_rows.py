"""One case from end to end, with contestants that may fail."""

from dataclasses import replace

import pytest
import torch
from benchmarks.speed.grids import CASES
from benchmarks.speed.measure import measure
from benchmarks.speed.peers import PEERS

from anynorm.bench.cases import Case
from anynorm.bench.timing import Budget

SHORT = Budget(seconds=0.0, fewest=2, most=2, per_round=0.0)
RELU = [Case("batch", "contiguous", (2, 3, 4, 4), "fp32", "relu", p) for p in ("forward", "both")]


def test_a_row_has_what_is_reported_beside_the_packages():
    rows = list(measure(RELU, ("eager",), SHORT))
    assert [row["phase"] for row in rows] == ["forward", "both"]
    assert [set(row["ratio"]) for row in rows] == [{"eager"}] * 2
    assert rows[0]["failed"] == {}
    assert rows[0]["twin"]
    assert rows[0]["peak_bytes"] == {}  # of a GPU


def test_what_is_composed_of_operators_is_no_twin():
    names = {"l1-batch": False, "weight": True}
    for name, twin in names.items():
        case = next(case for case in CASES if case.normalizer == name)
        shape = (2, 3, 4, 4)
        (row,) = measure([replace(case, shape=shape)], ("eager",), SHORT)
        assert (row["failed"], row["twin"]) == ({}, twin)


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
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # where torch imports its own
def test_a_layer_that_torch_really_compiles():
    case = Case("layer", "contiguous", (500, 200), "fp32", "plain", "both")
    (row,) = measure([case], ("compile",), SHORT)
    assert row["failed"] == {}
    assert set(row["ratio"]) == set(row["kept"]) - {"ours"} == {"compile"}


def test_a_contestant_that_fails_in_one_phase_is_missing_there(monkeypatch):
    class Once(torch.autograd.Function):
        """Its second backward pass fails: the first belongs to the check."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, dy):
            runs.append(1)
            if len(runs) > 1:
                raise RuntimeError("out of luck")
            return dy

    class Layer(torch.nn.LayerNorm):
        def forward(self, x):
            return Once.apply(super().forward(x))

    runs = []
    monkeypatch.setitem(PEERS, "frail", replace(PEERS["eager"], build=lambda case: Layer(6)))
    cases = [Case("layer", "contiguous", (4, 6), "fp32", "plain", p) for p in ("forward", "both")]
    rows = list(measure(cases, ("frail", "eager"), SHORT))
    assert [set(row["ratio"]) for row in rows] == [{"frail", "eager"}, {"eager"}]
    assert [row["failed"] for row in rows] == [{}, {"frail": "RuntimeError: out of luck"}]


def test_without_ours_there_is_no_ratio(monkeypatch):
    monkeypatch.setattr("benchmarks.speed.contestants.ours", lambda case: 1 / 0)
    (row,) = measure(RELU[1:], ("eager",), SHORT)
    assert row["ratio"] == {}
    assert set(row["us"]) == {"eager", "copy"}
    assert row["failed"] == {"ours": "ZeroDivisionError: division by zero"}


def test_setups_with_another_phase_are_the_same_input():
    case = CASES[0]
    assert replace(case, phase="both").setup == case.setup
