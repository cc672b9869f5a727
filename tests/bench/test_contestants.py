"""The contestants compute the same: outputs and gradients, on small inputs of every kind."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from anynorm.bench import contestants, devices
from anynorm.bench.cases import Case
from anynorm.bench.contestants import Attempts, BrokenDeviceError, built
from anynorm.bench.grids import CASES, WEIGHTS
from anynorm.bench.layers import alike, inputs, ours, theirs
from anynorm.bench.peers import PEERS

TINY = {"rows": (5, 6), "weights": (4, 3, 2, 2), "images": (2, 6, 3, 4)}
# float32 keeps 24 bits and bfloat16 8; a gradient goes through a few roundings.
TOLERANCE = {"fp32": {"rtol": 1e-4, "atol": 1e-5}, "bf16": {"rtol": 2**-5, "atol": 2**-5}}
NEAR_THE_KINK = 0.05


def tiny(case):
    kind = "weights" if case.shape in WEIGHTS else "rows" if len(case.shape) == 2 else "images"
    return replace(case, shape=TINY[kind])


TINY_CASES = list(dict.fromkeys(tiny(case) for case in CASES if case.phase != "forward"))


def twins(case):
    """Ours and theirs with the same random parameters."""
    torch.manual_seed(0)
    mine, torchs = ours(case), theirs(case)
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.add_(torch.randn_like(parameter))
    alike(mine, torchs)
    return mine, torchs


def away_from_the_kink(layer, given):
    """The random cotangent, but nothing where rounding decides which side of 0 a value is on."""
    before, layer.phi = layer.phi, None
    z = layer(*given.forward)
    layer.phi = before
    return given.dy * (z.detach().abs() > NEAR_THE_KINK)


@pytest.mark.parametrize("case", TINY_CASES, ids=lambda case: case.name)
def test_ours_and_torchs_are_equal(case):
    given = inputs(case)
    mine, torchs = twins(case)
    for layer in (mine, torchs):
        layer.train(case.phase != "evaluation")
    dy = away_from_the_kink(torchs, given)
    assert_close(mine(*given.forward), torchs(*given.forward), **TOLERANCE[case.dtype])
    found, expected = (gradients(layer, given, dy) for layer in (mine, torchs))
    for gradient, wanted in zip(found, expected, strict=True):
        assert_close(gradient, wanted.view_as(gradient), **TOLERANCE[case.dtype])


def gradients(layer, given, dy):
    return torch.autograd.grad(layer(*given.forward), (*given.forward, *layer.parameters()), dy)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in TINY_CASES
        if case.phase == "both" and case.normalizer[:2] not in ("l1", "li", "we")
    ],
    ids=lambda case: case.name,
)
def test_jax_computes_the_same(case):
    pytest.importorskip("jax")
    from anynorm.bench import jax_peer

    given, layer = inputs(case), theirs(case)
    dy = given.dy
    expected = (layer(*given.forward), *gradients(layer, given, dy))
    order = [0, 1, *range(2 + len(given.forward) - 1, len(expected)), *range(2, 2 + case.adds)]
    found = jax_peer.value_and_gradients(case, given)
    for array, tensor in zip(found, (expected[index] for index in order), strict=True):
        assert_close(torch.tensor(array), tensor.detach().float(), **TOLERANCE[case.dtype])


def test_memory_layout_and_type_are_the_cases():
    for case in TINY_CASES:
        x = inputs(case).x
        last = case.layout == "channels_last"
        assert x.is_contiguous(memory_format=torch.channels_last) if last else x.is_contiguous()
        assert x.dtype is {"fp32": torch.float32, "bf16": torch.bfloat16}[case.dtype]


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
    monkeypatch.setattr(devices, "healthy", lambda device: False)

    def fail():
        raise RuntimeError("an illegal memory access")

    with pytest.raises(BrokenDeviceError, match="illegal"):
        Attempts("cuda:0")("liger", fail)


@pytest.mark.parametrize("fusion", ["plain", "relu", "add+relu"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_batch_norm_agrees_with_parameters_in_float32(monkeypatch, layout, fusion):
    monkeypatch.setattr(contestants, "parameter_type", lambda case, device: torch.float32)
    case = Case("batch", layout, (4, 6, 5, 5), "bf16", fusion, "both")
    attempt = Attempts("cpu")
    layers = built([case], ["eager"], inputs(case), attempt)
    assert (list(layers), attempt.failed) == (["ours", "eager"], {})
    assert all(p.dtype is torch.float32 for layer in layers.values() for p in layer.parameters())
