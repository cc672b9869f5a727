"""A bias for layers that have none."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["add_bias"]


def add_bias(module: nn.Module) -> nn.Parameter:
    """Give a linear layer or convolution a bias of zeros, or return the one it has.

    >>> add_bias(nn.Linear(2, 3, bias=False))
    Parameter containing:
    tensor([0., 0., 0.], requires_grad=True)
    """
    known = module._parameters.get("bias")
    if known is not None:
        return known
    weight: Any = module.weight
    count = getattr(module, "out_channels", None) or module.out_features
    bias = nn.Parameter(weight.new_zeros(count), requires_grad=weight.requires_grad)
    module.register_parameter("bias", bias)
    return bias
