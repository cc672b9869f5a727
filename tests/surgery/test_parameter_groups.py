import pytest
import torch
from torch import nn

import anynorm


class LayerNorm2d(nn.Module):
    """Over channels, with γ and β that have four axes."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x):
        away = x - x.mean(1, keepdim=True)
        return away * (away.square().mean(1, keepdim=True) + 1e-6).rsqrt() * self.weight + self.bias


class Gate(nn.Module):
    """A factor for each channel that normalizes nothing."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x):
        return x * self.weight


def decay_of(model, weight_decay=0.1):
    groups = anynorm.parameter_groups(model, weight_decay)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    return {name: decay[id(p)] for name, p in model.named_parameters()}


def test_gains_shifts_and_biases_have_no_decay_whatever_their_class_and_shape():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        LayerNorm2d(8),
        nn.BatchNorm2d(8),
        nn.LayerNorm([8, 4, 4]),
        anynorm.create("scale", 4),
        Gate(8),
        nn.Linear(1, 8),
    )
    assert {name for name, decay in decay_of(model).items() if decay} == {
        "0.weight",
        "5.weight",
        "6.weight",
    }


def test_a_tied_parameter_is_there_once_and_a_frozen_one_is_not():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    groups = anynorm.parameter_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [1, 3]


def test_without_weight_decay_there_is_one_group():
    [group] = anynorm.parameter_groups(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), 0)
    assert (len(group["params"]), group["weight_decay"]) == (4, 0.0)


@pytest.mark.parametrize("weight_decay", [-1, "much", True, float("nan")])
def test_wrong_weight_decay(weight_decay):
    with pytest.raises(anynorm.AnynormError, match="weight_decay="):
        anynorm.parameter_groups(nn.Linear(2, 2), weight_decay)


def test_lazy_parameters_have_no_shape_yet():
    with pytest.raises(anynorm.AnynormError, match="Call it once"):
        anynorm.parameter_groups(nn.LazyLinear(3), 0.1)
