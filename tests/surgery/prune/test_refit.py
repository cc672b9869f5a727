"""Pruning with the layers behind solved anew."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from networks import NETWORKS, Again, network, prepared
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.nn import DynamicTanh
from anynorm.surgery import convert, prune, recalibrate
from anynorm.surgery.channels import analyse
from anynorm.surgery.graph import capture
from anynorm.surgery.refitting import pairs, refit
from anynorm.surgery.refitting.readers import readers

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def error(model: nn.Module, other: nn.Module, batches: list[Tensor]) -> float:
    """The squared difference of the outputs over their variance."""
    with torch.no_grad():
        one, two = (torch.cat([m(x).flatten(1) for x in batches]) for m in (model, other))
    return float((one - two).square().sum() / (one - one.mean(0)).square().sum())


def inputs(x: Tensor, count: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn((32, *x.shape[1:]), generator=generator) for _ in range(count)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_outputs_are_nearer_than_with_constants_and_statistics_alone(name: str) -> None:
    model, x = network(name)
    batches = inputs(x)
    right = recalibrate(model, batches).model
    refitted = prune(model, x, ratio=0.5, refit=batches, recalibrate=batches)
    usual = prune(model, x, ratio=0.5, recalibrate=batches)
    assert refitted.receipt.facts["cut"] > 0
    assert "layers" in refitted.receipt.facts["refit"]
    held_out = [torch.randn(64, *x.shape[1:], generator=torch.Generator().manual_seed(4))]
    assert error(right, refitted.model, held_out) < error(right, usual.model, held_out)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plan_and_the_state_give_the_same_model(name: str) -> None:
    model, x = network(name)
    before = copy.deepcopy(model.state_dict())
    result = prune(model, x, ratio=0.5, refit=inputs(x, 2))
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    fresh = result.plan.apply(model)
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(fresh(x), result.model(x))


@pytest.mark.parametrize("name", ["residual", "gated", "transposed"])
def test_one_pass_and_a_pass_for_each_layer_give_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = network(name)
    found = []
    for together in (True, False):
        monkeypatch.setattr(refit, "fit_together", lambda *_, together=together: together)
        found.append(prune(model, x, ratio=0.5, refit=inputs(x, 2)).model.state_dict())
    assert all(value.equal(found[1][key]) for key, value in found[0].items())


def test_channels_of_a_dynamic_tanh() -> None:
    model, x = network("flattened")
    bent = convert(model, "dyt", x).model
    result = prune(bent, x, ratio=0.5, refit=inputs(x))
    layer: DynamicTanh = result.model[0][1]
    assert layer.normalized_shape == tuple(layer.weight.shape) == (3,)
    assert layer.alpha.shape == (1,)
    assert error(bent, result.model, inputs(x)) < 0.9


@pytest.mark.parametrize("size", [4, 5])
def test_calls_that_the_example_did_not_have_play_no_part(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = prepared(Again, (4, 3, 8, 8))
    batches = [torch.randn(size, 3, 8, 8), torch.randn(4, 3, 8, 8)]
    found = []
    for together in (True, False):
        monkeypatch.setattr(refit, "fit_together", lambda *_, together=together: together)
        found.append(prune(model, x, ratio=0.5, refit=batches).model.state_dict())
    assert all(value.equal(found[1][key]) for key, value in found[0].items())


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[Tensor]:
        return iter([X, X])


def test_batches_wait_together_where_that_is_sound() -> None:
    model, x = network("residual")
    stops = readers(analyse(capture(model, x)))
    assert refit.fit_together(model, stops, [x, x], None, None)
    assert not refit.fit_together(model, stops, iter([x, x]), None, None)  # of no known length
    stream = torch.utils.data.DataLoader(Stream(), batch_size=None)  # has no len, but __len__
    assert not refit.fit_together(model, stops, stream, None, None)
    twice, x = network("twice")
    stops = readers(analyse(capture(twice, x)))
    assert not refit.fit_together(twice, stops, [x, x], None, None)


def test_no_more_batches_wait_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network("residual")
    stops = readers(analyse(capture(model, x)))
    monkeypatch.setattr(pairs, "allowed", lambda *_: 1000.0)
    assert not refit.fit_together(model, stops, [x, x], None, None)


def mlp() -> nn.Sequential:
    """Eight hidden units of which three are copies of others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3))
    with torch.no_grad():
        for value in (model[0].weight, model[0].bias):
            value[5:] = value[:3]  # type: ignore[index]
    return model


def test_what_others_can_take_over_goes_and_channels_need_no_gamma() -> None:
    model, batches = mlp(), [torch.randn(50, 6) for _ in range(4)]
    result = prune(model, batches[0], ratio=3 / 8, refit=batches)
    assert result.model[0].out_features == 5
    assert error(model, result.model, batches) < 1e-6
    kept = set(range(8)) - set(result.plan.cuts["0.weight"][0])
    assert {unit % 5 if unit > 4 else unit for unit in kept} == set(range(5))
    assert [note.layer for note in result.receipt.changed] == ["0"]


def test_without_refit_channels_without_gamma_are_not_cut() -> None:
    with pytest.raises(AnynormError, match="no channel that can be cut"):
        prune(mlp(), torch.randn(4, 6), ratio=0.5)


def test_layers_are_ignored_by_name() -> None:
    with pytest.raises(AnynormError, match="0: it is ignored"):
        prune(mlp(), torch.randn(4, 6), ratio=0.5, refit=[torch.randn(9, 6)], ignore="0")


def test_a_generator_is_enough() -> None:
    model, batches = mlp(), [torch.randn(50, 6) for _ in range(4)]
    one = prune(model, batches[0], ratio=0.5, refit=iter(batches)).model
    two = prune(model, batches[0], ratio=0.5, refit=batches).model
    assert torch.equal(one(batches[0]), two(batches[0]))


@pytest.mark.parametrize("goal", [{"parameters": 0.5}, {"flops": 0.5}, {"ratio": 0.5}])
def test_every_goal_is_kept(goal: dict[str, float]) -> None:
    model, x = network("residual")
    facts = prune(model, x, refit=inputs(x, 2), **goal).receipt.facts  # type: ignore[arg-type]
    if "ratio" in goal:
        assert facts["cut"] <= 0.5 * facts["channels"]
        return
    before, after = map(int, facts[next(iter(goal))].split(" -> "))
    assert 0 < after <= 0.5 * before


def test_below_the_gap_the_channels_are_those_of_gamma() -> None:
    model, x = network("concatenated")
    norm = model.one[1]  # type: ignore[index, union-attr]
    with torch.no_grad():
        norm.weight[[1, 4]] = 1e-6
    result = prune(model, x, gap=True, refit=inputs(x), recalibrate=inputs(x))
    assert result.plan.cuts["one.1.weight"] == {0: (1, 4)}
    right = recalibrate(model, inputs(x)).model
    assert error(right, result.model, inputs(x)) < 1e-6


def test_the_constant_of_a_cut_channel_is_fitted_at_padded_borders_too() -> None:
    """As near as a bias and the other channels come; the receipt of absorb calls it inexact."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3, padding=1)
    ).eval()
    with torch.no_grad():
        model[1].bias.fill_(0.7)
        model[1].weight[[1, 4]] = 0
    batches = [torch.randn(16, 3, 6, 6) for _ in range(8)]
    right = recalibrate(model, batches).model
    refitted = prune(model, batches[0], gap=True, refit=batches, recalibrate=batches).model
    absorbed = prune(model, batches[0], gap=True, recalibrate=batches).model
    assert error(right, refitted, batches) < 0.5 * error(right, absorbed, batches)


def test_the_hidden_units_of_a_transformer_layer_are_cut() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    batches = [torch.randn(20, 6, 16) for _ in range(4)]
    result = prune(model, batches[0], ratio=0.25, refit=batches)
    assert result.model.linear1.out_features == 24
    assert error(model, result.model, batches) < 0.05


def test_one_sample_and_values_that_are_not_finite_change_nothing() -> None:
    model, x = network("rows")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(AnynormError, match="two samples"):
        prune(model, x, ratio=0.5, refit=[x[:1]], recalibrate=[x], inplace=True)
    with pytest.raises(AnynormError, match="not finite"):
        prune(mlp(), torch.randn(4, 6), ratio=0.5, refit=[torch.full((4, 6), torch.nan)])
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


def test_half_precision_keeps_its_type() -> None:
    model, batches = mlp().bfloat16(), [torch.randn(50, 6).bfloat16() for _ in range(4)]
    result = prune(model, batches[0], ratio=3 / 8, refit=batches)
    assert result.model[2].weight.dtype == torch.bfloat16
    assert error(model, result.model, batches) < 1e-3
