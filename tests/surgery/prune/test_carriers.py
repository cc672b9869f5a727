"""One channel for the constants of those that are cut."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from networks import NETWORKS, conv, network, prepared
from padded_networks import PADDED, VARYING, plain
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery import Pruned, freeze, prune

NORMS = nn.modules.batchnorm._BatchNorm
KEPT = "kept for their constants"


@torch.no_grad()
def sparse(model: nn.Module, x: Tensor, ratio: float = 0.5) -> nn.Module:
    """The model with γ = 0 for the channels that a cut takes."""
    plan = prune(model, x, ratio=ratio, absorb=False).plan
    model = copy.deepcopy(model)
    for name, layer in model.named_modules():
        if isinstance(layer, NORMS):
            layer.weight[list(plan.cuts.get(f"{name}.weight", {}).get(0, ()))] = 0
    return model


def relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


def zeros(model: nn.Module) -> int:
    """The number of γ that are 0."""
    norms = [layer for layer in model.modules() if isinstance(layer, NORMS)]
    return sum(int((layer.weight == 0).sum()) for layer in norms)


def notes(result: Pruned[Any]) -> str:
    return str(result.receipt.facts["absorbed"])


@pytest.mark.parametrize("name", PADDED)
def test_exact_at_padded_borders(name: str) -> None:
    model, x = prepared(*PADDED[name])
    model = sparse(model, x)
    bias = prune(model, x, gap=True)
    channel = prune(model, x, gap=True, absorb="channel")
    assert relative(bias.model(x), model(x)) > 1e-3
    assert relative(channel.model(x), model(x)) < 1e-5
    assert "by a channel that is kept" in notes(channel)
    assert "except" not in notes(channel)
    assert "average" not in notes(channel)
    cut = [result.receipt.facts["cut"] for result in (bias, channel)]
    assert 0 < cut[1] == cut[0] - zeros(channel.model)


@pytest.mark.parametrize("name", PADDED)
def test_only_what_varied_is_lost_of_channels_with_other_gammas(name: str) -> None:
    model, x = prepared(*PADDED[name], seed=1)
    result = prune(model, x, ratio=0.4, absorb="channel")
    silent = copy.deepcopy(model)
    for layer, norm in silent.named_modules():
        if isinstance(norm, NORMS):
            gone = list(result.plan.cuts.get(f"{layer}.weight", {}).get(0, ()))
            left = [i for i in range(len(norm.weight)) if i not in gone]
            kept = result.model.get_submodule(layer).weight == 0  # type: ignore[operator]
            carriers = [i for i, zero in zip(left, kept.tolist(), strict=True) if zero]
            norm.weight.data[gone + carriers] = 0
    assert relative(result.model(x), silent(x)) < 1e-5


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "transposed"])
def test_no_channel_is_spent_without_padding(name: str) -> None:
    model, x = network(name)
    bias = prune(model, x, ratio=0.5)
    channel = prune(model, x, ratio=0.5, absorb="channel")
    assert channel.plan == bias.plan
    assert torch.equal(channel.model(x), bias.model(x))
    assert zeros(channel.model) == 0


def test_a_transposed_convolution_has_borders_without_padding() -> None:
    model: Any = nn.Sequential(conv(3, 6), nn.ConvTranspose2d(6, 2, 3)).eval()
    nn.init.ones_(model[0][1].bias)
    x = torch.randn(4, 3, 8, 8)
    assert notes(prune(model, x, ratio=0.5)) == "except at zero-padded borders: 1"
    channel = prune(model, x, ratio=0.5, absorb="channel")
    assert notes(channel) == "exactly, by a channel that is kept: 1"


@pytest.mark.parametrize("name", VARYING)
def test_constants_that_vary_go_to_the_bias(name: str) -> None:
    model, x = prepared(*VARYING[name])
    bias = prune(model, x, ratio=0.5)
    channel = prune(model, x, ratio=0.5, absorb="channel")
    assert channel.plan == bias.plan
    assert "varies" in notes(channel)


def test_only_readers_that_pad_take_the_channel() -> None:
    model, x = prepared(*PADDED["readers"])
    result = prune(sparse(model, x), x, gap=True, absorb="channel")
    assert notes(result) == "exactly: three; exactly, by a channel that is kept: one, two"


def test_a_reader_in_which_the_kept_channel_is_0_uses_its_bias() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.one, self.two = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x))
            y: Tensor = self.one(x.relu()) + self.two((-x).relu())
            return y

    model = Two().eval()
    model.norm.weight.data[:3] = 0
    model.norm.bias.data = torch.tensor([0.5, -0.7, -0.3, 0.0])
    result: Any = prune(model, torch.randn(4, 3, 8, 8), gap=True, absorb="channel")
    assert result.model.norm.bias[0] == torch.tensor(-0.7)
    exact = "exactly, by a channel that is kept: two"
    assert notes(result) == f"{exact}; except at zero-padded borders: one"


def test_nothing_is_kept_for_constants_of_0() -> None:
    model, x = prepared(*PADDED["plain"])
    for layer in model.modules():
        if isinstance(layer, NORMS):
            nn.init.constant_(layer.bias, -0.5)
    model = sparse(model, x)
    result = prune(model, x, gap=True, absorb="channel")
    assert result.plan == prune(model, x, gap=True).plan
    assert relative(result.model(x), model(x)) < 1e-5


def test_the_largest_constant_is_kept() -> None:
    model: Any = nn.Sequential(conv(3, 6), nn.Conv2d(6, 2, 3, padding=1)).eval()
    model[0][1].weight.data[:4] = 0
    model[0][1].bias.data = torch.tensor([0.1, -3.0, 0.7, 0.2, 0.0, 9.0])
    result: Any = prune(model, torch.randn(4, 3, 8, 8), gap=True, absorb="channel")
    assert result.plan.cuts["0.1.weight"] == {0: (0, 1, 3)}
    assert result.model[0][1].bias[0] == torch.tensor(0.7)
    assert KEPT in str(result.receipt)


@pytest.mark.parametrize(
    ("least", "multiple", "left"), [(1, 1, 2), (3, 1, 3), (1, 4, 4), (8, 1, 8)]
)
def test_the_kept_channel_counts(least: int, multiple: int, left: int) -> None:
    model: Any = nn.Sequential(conv(3, 8), nn.Conv2d(8, 2, 3, padding=1)).eval()
    nn.init.ones_(model[0][1].bias)
    x = torch.randn(4, 3, 8, 8)
    options: Any = {"least": least, "multiple": multiple, "absorb": "channel"}
    result: Any = prune(model, x, ratio=0.99, **options)
    assert len(result.model[0][1].weight) == left
    assert zeros(result.model) == (left < 8)


def test_budgets_hold_with_the_kept_channels() -> None:
    model, x = prepared(*PADDED["smooth"])
    result = prune(model, x, parameters=0.5, absorb="channel")
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, result.model))
    assert zeros(result.model) > 0
    assert after <= 0.5 * before
    assert result.receipt.facts["parameters"] == f"{before} -> {after}"
    by_ratio = prune(model, x, ratio=0.5, absorb="channel")
    assert zeros(by_ratio.model) > 0
    assert by_ratio.receipt.facts["cut"] == 7


def test_a_lone_channel_is_not_replaced_by_itself() -> None:
    model, x = prepared(*PADDED["line"])
    result = prune(model, x, ratio=1 / 8, absorb="channel")
    # Two lose what varies in them and one of the two goes.
    assert (result.receipt.facts["cut"], zeros(result.model)) == (1, 1)
    again = prune(result.model, x, gap=True, absorb="channel")
    assert again.receipt.facts["cut"] == 0
    assert torch.equal(again.model(x), result.model(x))


def test_an_undone_cut_leaves_the_model_as_it_was() -> None:
    model, x = prepared(*PADDED["smooth"])
    before, outputs = copy.deepcopy(model.state_dict()), model(x)
    options: Any = {"absorb": "channel", "inplace": True, "tolerance": 0.0}
    assert prune(model, x, ratio=0.5, **options).receipt.rolled_back
    assert all(torch.equal(old, model.state_dict()[name]) for name, old in before.items())
    assert torch.equal(model(x), outputs)


@pytest.mark.parametrize("name", ["plain", "summed"])
def test_frozen_norms(name: str) -> None:
    model, x = prepared(*PADDED[name])
    frozen = freeze(sparse(model, x)).model
    result = prune(frozen, x, gap=True, absorb="channel")
    assert "by a channel that is kept" in notes(result)
    assert relative(result.model(x), frozen(x)) < 1e-5


@pytest.mark.parametrize("name", ["summed", "upwards", "grouped"])
def test_the_weights_load_into_a_fresh_model_that_the_plan_cut(name: str) -> None:
    model, x = prepared(*PADDED[name])
    result = prune(model, x, ratio=0.5, absorb="channel")
    fresh = result.plan.apply(prepared(*PADDED[name], seed=3)[0])
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(fresh(x), result.model(x))


def test_a_refit_needs_no_such_channel() -> None:
    model, x = prepared(*PADDED["line"])
    refitted = [prune(model, x, ratio=0.5, refit=[x], absorb=how) for how in (True, "channel")]  # type: ignore[arg-type]
    assert refitted[0].plan == refitted[1].plan


def test_an_unknown_way() -> None:
    with pytest.raises(AnynormError, match="absorb='bias' is unknown: give True, False or 'chan"):
        prune(plain(), torch.randn(4, 3, 8, 8), ratio=0.5, absorb="bias")  # type: ignore[arg-type]
