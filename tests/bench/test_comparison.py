"""Cases from end to end: rows, bandwidth, the memory that layers keep, and failures."""

from dataclasses import replace

import pytest
import torch

from anynorm.bench import comparison
from anynorm.bench.cases import Case
from anynorm.bench.comparison import kept, measure, row
from anynorm.bench.layers import inputs, theirs
from anynorm.bench.timing import Budget

SHORT = Budget(seconds=0.0, fewest=2, most=2, per_round=0.0)
RELU = [Case("batch", "contiguous", (2, 3, 4, 4), "fp32", "relu", p) for p in ("forward", "both")]


def test_a_row_has_all_that_is_reported():
    rows = list(measure(RELU, SHORT))
    assert [row["phase"] for row in rows] == ["forward", "both"]
    assert set(rows[0]["us"]) == set(rows[0]["gb_per_s"]) == {"ours", "eager", "copy"}
    assert set(rows[0]["copies"]) == set(rows[0]["share"]) == {"ours", "eager"}
    assert set(rows[0]["ratio"]) == {"eager"}
    assert rows[0]["rounds"] == 2
    assert rows[0]["input_bytes"] == 2 * 3 * 4 * 4 * 4


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


def test_what_torchs_batch_norm_and_relu_keep():
    given = inputs(RELU[1])
    found = kept(theirs(RELU[1]), given)
    statistics = 2 * 3 * 4
    assert found == {"bytes": 2 * given.x.nbytes + statistics, "x": given.x.nbytes}


def test_evaluation_is_timed_in_evaluation():
    case = Case("batch", "channels_last", (2, 3, 4, 4), "fp32", "add+relu", "evaluation")
    (row,) = measure([case], SHORT)
    assert row["kept"] == {}
    assert set(row["ratio"]) == {"eager"}


def test_the_compiled_layer_is_torchs(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda layer, **_: seen.append(layer) or layer)
    rows = list(measure(RELU, SHORT, compiles=True))
    assert [set(row["ratio"]) for row in rows] == [{"eager", "compile"}] * 2
    assert [layer.norm.__class__ for layer in seen] == [torch.nn.BatchNorm2d]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # where torch imports its own
def test_a_layer_that_torch_really_compiles():
    (row,) = measure(RELU[1:], SHORT, compiles=True)
    assert set(row["ratio"]) == {"eager", "compile"}


def test_what_fails_is_a_row_with_the_reason(monkeypatch):
    def some(case, device):
        if case.normalizer == "rms":
            raise RuntimeError("no memory")
        return inputs(case, device)

    monkeypatch.setattr(comparison, "inputs", some)
    rms = Case("rms", "contiguous", (4, 6), "fp32", "plain", "both")
    rows = list(measure([replace(rms, phase="forward"), rms, *RELU], SHORT))
    assert rows[0] == {"name": rms.setup, "failed": "RuntimeError: no memory"}
    assert [row["name"] for row in rows[1:]] == [case.name for case in RELU]


def test_inputs_take_turns_where_the_device_wants_them(monkeypatch):
    made = []
    monkeypatch.setattr(comparison, "sets", lambda nbytes, device: 3)
    monkeypatch.setattr(
        comparison, "inputs", lambda case, device: made.append(inputs(case, device)) or made[-1]
    )
    (row,) = measure(RELU[1:], SHORT)
    assert len(made) == 3
    assert "failed" not in row
