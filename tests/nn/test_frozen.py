"""Batch norm with constant statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import anynorm
from anynorm.errors import ShapeError


def trained(channels: int = 3) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    for _ in range(3):
        layer(torch.randn(8, channels, 4, 4) * 2 + 1)
    nn.init.uniform_(layer.weight)
    return layer


@pytest.mark.parametrize("trainable", [False, True])
def test_frozen_means_frozen(trainable: bool) -> None:
    old, x = trained(), torch.randn(5, 3, 4, 4)
    layer = anynorm.FrozenBatchNorm(3, trainable=trainable)
    layer.load_state_dict(old.state_dict())
    layer.requires_grad_(True).train()
    expected = old.eval()(x)
    for _ in range(2):
        torch.testing.assert_close(layer(x), expected)
    assert len(list(layer.parameters())) == (2 if trainable else 0)
    assert torch.equal(layer.running_mean, old.running_mean)


def test_activation_residual_and_gradient() -> None:
    layer = anynorm.FrozenBatchNorm(3, affine=False, activation="relu")
    x = torch.randn(5, 3, 4, 4, requires_grad=True)
    y, cotangent = layer(x, -x), torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(y, torch.relu(x / (1 + layer.eps) ** 0.5 - x))
    layer(x).backward(cotangent)
    expected = torch.where(x > 0, cotangent / (1 + layer.eps) ** 0.5, 0.0)
    torch.testing.assert_close(x.grad, expected.detach())


def test_what_updates_batch_norms_passes_it_by() -> None:
    model = nn.Sequential(anynorm.FrozenBatchNorm(3))
    torch.optim.swa_utils.update_bn([torch.randn(8, 3)], model)
    assert torch.equal(model[0].running_mean, torch.zeros(3))


def test_other_channels_are_an_error() -> None:
    with pytest.raises(ShapeError, match=r"takes \(N, C, \*\) with C = 3, got shape \(2, 4\)"):
        anynorm.FrozenBatchNorm(3)(torch.randn(2, 4))


def test_it_is_a_leaf_of_fx_and_shows_what_it_is() -> None:
    model = nn.Sequential(anynorm.FrozenBatchNorm(3, trainable=True, activation="relu"))
    nodes = torch.fx.symbolic_trace(model).graph.nodes
    assert [node.op for node in nodes] == ["placeholder", "call_module", "output"]
    assert repr(model[0]) == "FrozenBatchNorm(3, eps=1e-05, trainable=True, activation='relu')"


def test_synchronised_batch_norm_keeps_activation_and_residual() -> None:
    layer = anynorm.SyncBatchNorm(3, activation="relu").eval()
    x = torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(layer(x, -x), torch.relu(x / (1 + layer.eps) ** 0.5 - x))
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
