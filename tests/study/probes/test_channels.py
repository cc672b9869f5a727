"""Which channels are looked at after training."""

from __future__ import annotations

import torch
from torch import nn

from anynorm.nn import create
from anynorm.study.probes.channels import channels_of


def test_only_batch_norm_with_gamma_and_beta_is_measured() -> None:
    layers = [nn.BatchNorm1d(4, affine=False), nn.LayerNorm(4), create("batch", 4)]
    layers += [create("l1-batch", 4), nn.BatchNorm1d(4)]
    assert [found.name for found in channels_of(nn.Sequential(*layers))] == ["2", "4"]
    assert channels_of(nn.Sequential(nn.Linear(4, 4))) == []


def test_channels_of_a_large_model_are_spread_over_every_layer() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1000), nn.BatchNorm1d(500))
    first, second = channels_of(model, most=300)
    assert (len(first.chosen), len(second.chosen)) == (200, 100)
    assert (first.chosen[0], first.chosen[-1]) == (0, 999)
    assert len(first.chosen.unique()) == 200


def test_a_small_model_is_measured_whole() -> None:
    [found] = channels_of(nn.Sequential(nn.BatchNorm1d(7)))
    assert torch.equal(found.chosen, torch.arange(7))
