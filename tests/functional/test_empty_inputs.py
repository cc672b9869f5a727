"""Inputs without values: outputs of their shape, and gradients of γ and β that are zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import anynorm

SHAPES = {"no samples": (0, 4, 3), "no positions": (2, 4, 0)}
LAYERS = {
    "BatchNorm1d": lambda: anynorm.BatchNorm1d(4),
    "InstanceNorm1d": lambda: anynorm.InstanceNorm1d(4, affine=True),
    "InstanceNorm1d, tanh": lambda: anynorm.InstanceNorm1d(4, affine=True, activation="tanh"),
    "GroupNorm of single channels": lambda: anynorm.GroupNorm(4, 4),
    "GroupNorm": lambda: anynorm.GroupNorm(2, 4, activation=torch.tanh),
    "filter-response": lambda: anynorm.create("filter-response", 4),
    "ghost": lambda: anynorm.create("ghost", 4, size=2),
    "l1-batch": lambda: anynorm.create("l1-batch", 4),
    "zca": lambda: anynorm.create("zca", 4),
    "pca": lambda: anynorm.create("pca", 4, groups=2),
    "frozen": lambda: anynorm.FrozenBatchNorm(4, trainable=True),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LAYERS)
def test_empty_inputs(name: str, shape: str, dtype: torch.dtype, training: bool) -> None:
    layer: nn.Module = LAYERS[name]().train(training)
    before = {key: buffer.clone() for key, buffer in layer.named_buffers()}
    x = torch.zeros(SHAPES[shape], dtype=dtype, requires_grad=True)
    residual = torch.zeros_like(x, requires_grad=True)
    y = layer(x, residual)
    assert y.shape == x.shape
    assert y.dtype == dtype
    y.sum().backward()
    assert x.grad is not None
    assert residual.grad is not None
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None, key
        assert not parameter.grad.any(), key
    for key, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[key]), key
