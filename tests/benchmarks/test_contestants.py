"""The contestants compute the same: outputs and gradients, on small inputs of every kind."""

from dataclasses import replace

import pytest
import torch
from benchmarks.speed import contestants, jax_peer
from benchmarks.speed.contestants import Attempts, BrokenDeviceError, built
from benchmarks.speed.grids import CASES
from benchmarks.speed.normalizers import ours, theirs
from benchmarks.speed.peers import PEERS
from sides import TOLERANCE, check_sides, gradients, tiny
from torch import nn
from torch.testing import assert_close

from anynorm.bench.cases import Case
from anynorm.bench.layers import inputs

TINY_CASES = tiny(CASES)


@pytest.mark.parametrize("case", TINY_CASES, ids=lambda case: case.name)
def test_ours_and_torchs_are_equal(case):
    check_sides(case, ours(case), theirs(case))


SERVED_BY_JAX = [c for c in TINY_CASES if c.phase == "both" and c.normalizer in jax_peer.SERVED]


@pytest.mark.parametrize("case", SERVED_BY_JAX, ids=lambda case: case.name)
def test_jax_computes_the_same(case):
    pytest.importorskip("jax")
    given, layer = inputs(case), theirs(case)
    dy = given.dy
    expected = (layer(*given.forward), *gradients(layer, given, dy))
    order = [0, 1, *range(2 + len(given.forward) - 1, len(expected)), *range(2, 2 + case.adds)]
    found = jax_peer.value_and_gradients(case, given)
    for array, tensor in zip(found, (expected[index] for index in order), strict=True):
        assert_close(torch.tensor(array), tensor.detach().float(), **TOLERANCE[case.dtype])


def test_who_computes_something_else_is_left_out(monkeypatch):
    case = Case("layer", "contiguous", (40, 60), "fp32", "plain", "both")
    wrong = replace(PEERS["eager"], build=lambda case: nn.LayerNorm(case.shape[1], eps=1.0))
    monkeypatch.setitem(PEERS, "wrong", wrong)
    attempt = Attempts("cpu")
    assert list(built([case], ["wrong", "eager"], inputs(case), attempt)) == ["ours", "eager"]
    assert "DisagreementError: y is off by" in attempt.failed["wrong"]


def test_outputs_that_are_not_finite_disagree(monkeypatch):
    case = Case("rms", "contiguous", (4, 6), "fp32", "plain", "both")
    monkeypatch.setitem(PEERS, "nan", replace(PEERS["eager"], build=lambda case: NotANumber(6)))
    attempt = Attempts("cpu")
    assert list(built([case], ["nan"], inputs(case), attempt)) == ["ours"]
    assert "off by nan" in attempt.failed["nan"]


class NotANumber(nn.RMSNorm):
    def forward(self, x):
        return super().forward(x) * float("nan")


def test_who_raises_is_left_out_with_the_reason(monkeypatch):
    def refuse(case):
        raise RuntimeError("no such width\nand more")

    case = Case("layer", "contiguous", (4, 6), "fp32", "plain", "both")
    monkeypatch.setitem(PEERS, "refuses", replace(PEERS["eager"], build=refuse))
    attempt = Attempts("cpu")
    assert list(built([case], ["refuses"], inputs(case), attempt)) == ["ours"]
    assert attempt.failed == {"refuses": "RuntimeError: no such width and more"}


def test_a_device_that_breaks_ends_the_run(monkeypatch):
    monkeypatch.setattr(contestants, "healthy", lambda device: False)

    def fail():
        raise RuntimeError("an illegal memory access")

    with pytest.raises(BrokenDeviceError, match="illegal"):
        Attempts("cuda:0")("liger", fail)


@pytest.mark.parametrize("fusion", ["plain", "relu", "add+relu"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_batch_norm_agrees_with_parameters_in_float32(monkeypatch, layout, fusion):
    for name in ("theirs", "placed"):
        place = getattr(contestants, name)
        wide = lambda *given, place=place: place(*given).float()  # noqa: E731
        monkeypatch.setattr(contestants, name, wide)
    case = Case("batch", layout, (4, 6, 5, 5), "bf16", fusion, "both")
    attempt = Attempts("cpu")
    layers = built([case], ["eager"], inputs(case), attempt)
    assert (list(layers), attempt.failed) == (["ours", "eager"], {})
    assert all(p.dtype is torch.float32 for layer in layers.values() for p in layer.parameters())
