"""Whitening the channels of a group."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from anynorm import ops
from anynorm.errors import ShapeError
from anynorm.functional.checks import need_real
from anynorm.functional.pooled import check_number
from anynorm.functional.running import average
from anynorm.ops import Affine, Running
from anynorm.ops.ranks import Ranks
from anynorm.pattern import Plan
from anynorm.spec import Spec

__all__ = ["scaled", "whiten"]


def whiten(
    x: Tensor,
    spec: Spec,
    root: str,
    plan: Plan,
    affine: Affine,
    running: Running | None,
    training: bool,
    eps: float,
    sizes: Mapping[str, int],
    ranks: Ranks | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Whiten the channels of each group, with the values folded into matrices (groups, c, m)."""
    need_real(x)
    if x.numel() == 0 and ranks is None:  # of which γ and β have gradients of zero
        return scaled(x, plan, affine).to(x.dtype, copy=True)
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # 16 bits are too few for a covariance
        with torch.autocast(device, enabled=False):
            return whiten(x, spec, root, plan, affine, running, training, eps, sizes, ranks, mask)
    wide = x if x.dtype == torch.float64 else x.float()
    if running is not None and not training:
        y = _by_running(wide, spec, root, plan, running, eps)
    else:
        y = _by_own(wide, spec, root, plan, running, eps, sizes, ranks, mask)
    return scaled(y, plan, affine).to(x.dtype)


def _by_own(
    x: Tensor,
    spec: Spec,
    root: str,
    plan: Plan,
    running: Running | None,
    eps: float,
    sizes: Mapping[str, int],
    ranks: Ranks | None,
    mask: Tensor | None,
) -> Tensor:
    """Whiten by the statistics of `x` in the pattern's split view, and let them enter `running`."""
    order, channel = plan.matrix_order
    moved = x.reshape(plan.view(tuple(x.shape), sizes)).permute(order)
    values = _matrices(moved, channel)
    number: float | Tensor = 1.0
    if ranks is None and mask is None:
        mean, covariance = ops.whitening.moments(values)
    else:
        kept = None if mask is None else _vectors(mask, x, plan, sizes)
        number, mean, covariance = ops.pooled.covariance(values, ranks, kept)
        if kept is not None:
            check_number(x, number, mask)
    if running is not None:
        _track(running, number, mean, covariance)
    white = ops.whitening.inverse_root(covariance, root, eps) @ (
        values - mean if spec.center else values
    )
    back = [order.index(axis) for axis in range(len(order))]
    return white.reshape(moved.shape).permute(back).reshape(x.shape)


def _matrices(moved: Tensor, channel: int) -> Tensor:
    """The values as (groups, c, m), where `channel` is the axis of c."""
    groups, channels = moved.shape[:channel], moved.shape[channel]
    return moved.reshape(math.prod(groups), channels, math.prod(moved.shape[channel + 1 :]))


def _vectors(mask: Tensor, x: Tensor, plan: Plan, sizes: Mapping[str, int]) -> Tensor:
    """The mask as (groups, 1, m): a vector of channels counts or does not.  Raises `ShapeError`."""
    if mask.shape[plan.first] != 1:
        raise ShapeError(
            f"mask= has shape {tuple(mask.shape)}, with a choice for each channel: whitening takes "
            f"the channels at a position together. Give one for all, with 1 on axis {plan.first}."
        )
    order, channel = plan.matrix_order
    whole = [1 if axis == plan.first else size for axis, size in enumerate(x.shape)]
    split = mask.expand(whole).reshape(plan.part_view(x.shape, whole, sizes)).permute(order)
    groups = x.reshape(plan.view(tuple(x.shape), sizes)).permute(order).shape[:channel]
    return _matrices(split.expand(*groups, *split.shape[channel:]), channel)


def _track(running: Running, number: float | Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Let statistics enter, averaged over the parts of a split batch, which lie in front."""
    groups, channels = running.var.shape[:2]
    count = number
    if isinstance(number, Tensor):
        count = number.expand(len(mean), 1, 1).reshape(-1, groups, 1, 1)
    means = average(mean.reshape(-1, groups, channels, 1), count, [0])
    spreads = average(covariance.reshape(-1, *running.var.shape), count, [0])
    running.track(means.reshape(running.mean.shape), spreads.reshape(running.var.shape))


def _by_running(
    x: Tensor, spec: Spec, root: str, plan: Plan, running: Running, eps: float
) -> Tensor:
    """Whiten by running statistics: evaluation never splits a batch, so any size will do."""
    moved = x.movedim(plan.first, 0)
    values = moved.reshape(*running.var.shape[:2], -1)
    mean = running.mean.to(x.dtype).reshape(*running.var.shape[:2], 1)
    white = ops.whitening.inverse_root(running.var.to(x.dtype), root, eps) @ (
        values - mean if spec.center else values
    )
    return white.reshape(moved.shape).movedim(0, plan.first)


def scaled(x: Tensor, plan: Plan, affine: Affine) -> Tensor:
    """Return γ · x + β, with γ and β starting at the pattern's channel axis."""
    weight, bias = affine
    after = x.dim() - plan.first
    if weight is not None:
        x = x * weight.reshape(*weight.shape, *[1] * (after - weight.dim()))
    if bias is not None:
        x = x + bias.reshape(*bias.shape, *[1] * (after - bias.dim()))
    return x
