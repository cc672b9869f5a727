"""The arguments of a call of a normalization layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from anynorm import functional as F
from anynorm import nn as own

__all__ = ["input_of", "mask_of"]


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a call."""
    return args[0] if args else next(iter(kwargs.values()), None)


def mask_of(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The mask in a call of one of our layers, with as many axes as the input.

    >>> valid = torch.arange(5) < torch.tensor([[3], [5]])
    >>> mask_of(own.BatchNorm1d(3), (torch.zeros(2, 3, 5),), {"mask": valid}).shape
    torch.Size([2, 1, 5])
    """
    mask = kwargs.get("mask", args[2] if len(args) > 2 else None)
    if mask is None or not any(k.__module__.startswith("anynorm.") for k in type(layer).__mro__):
        return None
    x = input_of(args, kwargs)
    return F.whole_mask(mask, x, _channel_axis(layer, x))


def _channel_axis(layer: Any, x: Tensor) -> int:
    if isinstance(layer, own.Norm):
        return layer.spec.pattern.plan(x.dim()).first
    single = isinstance(layer, nn.modules.instancenorm._InstanceNorm)
    return 0 if single and x.dim() == layer.ranks[0] else 1
