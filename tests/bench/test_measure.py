"""One case from end to end, and the memory that layers keep."""

from dataclasses import replace

import pytest
import torch

from anynorm.bench import devices
from anynorm.bench import measure as module
from anynorm.bench.cases import Case
from anynorm.bench.grids import CASES
from anynorm.bench.kept import kept
from anynorm.bench.layers import inputs, theirs
from anynorm.bench.measure import measure, row
from anynorm.bench.peers import PEERS
from anynorm.bench.timing import Budget

SHORT = Budget(seconds=0.0, fewest=2, most=2, per_round=0.0)
RELU = [Case("batch", "contiguous", (2, 3, 4, 4), "fp32", "relu", p) for p in ("forward", "both")]


def test_a_row_has_all_that_is_reported():
    rows = list(measure(RELU, ("eager",), SHORT))
    assert [row["phase"] for row in rows] == ["forward", "both"]
    assert set(rows[0]["us"]) == set(rows[0]["gb_per_s"]) == {"ours", "eager", "copy"}
    assert set(rows[0]["copies"]) == set(rows[0]["share"]) == {"ours", "eager"}
    assert set(rows[0]["ratio"]) == {"eager"}
    assert rows[0]["rounds"] == 2
    assert rows[0]["input_bytes"] == 2 * 3 * 4 * 4 * 4
    assert rows[0]["failed"] == {}
    assert rows[0]["peak_bytes"] == {}  # of a GPU


def test_bandwidth_is_that_of_the_bytes_that_must_move():
    case = replace(RELU[1], fusion="add+relu")
    times = {"ours": [2e-6] * 3, "eager": [7e-6] * 3, "copy": [1e-6] * 3}
    found = row(case, times, {})
    # Forward x, residual, y; backward x, dy, dx and the residual's gradient.
    assert found["moved_bytes"] == 7 * case.nbytes
    assert found["gb_per_s"]["ours"] == pytest.approx(7 * case.nbytes / 2e-6 / 1e9)
    assert found["gb_per_s"]["copy"] == pytest.approx(2 * case.nbytes / 1e-6 / 1e9)
    assert found["share"]["ours"] == pytest.approx(
        found["gb_per_s"]["ours"] / found["gb_per_s"]["copy"]
    )


def test_evaluation_is_timed_in_evaluation():
    case = Case("batch", "channels_last", (2, 3, 4, 4), "fp32", "add+relu", "evaluation")
    (row,) = measure([case], ("eager", "compile"), SHORT)
    assert row["kept"] == {}
    assert set(row["ratio"]) == {"eager"}


def test_what_torchs_batch_norm_and_relu_keep():
    given = inputs(RELU[1])
    found = kept(theirs(RELU[1]), given)
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


def test_inputs_take_turns_where_the_device_wants_them(monkeypatch):
    made = []
    monkeypatch.setattr(devices, "sets", lambda nbytes, device: 3)
    monkeypatch.setattr(
        module, "inputs", lambda case, device: made.append(inputs(case, device)) or made[-1]
    )
    (row,) = measure(RELU[1:], ("eager",), SHORT)
    assert len(made) == 3
    assert row["failed"] == {}


def test_without_ours_there_is_no_ratio(monkeypatch):
    monkeypatch.setattr("anynorm.bench.contestants.ours", lambda case: 1 / 0)
    (row,) = measure(RELU[1:], ("eager",), SHORT)
    assert row["ratio"] == {}
    assert set(row["us"]) == {"eager", "copy"}
    assert row["failed"] == {"ours": "ZeroDivisionError: division by zero"}


def test_setups_with_another_phase_are_the_same_input():
    case = CASES[0]
    assert replace(case, phase="both").setup == case.setup
