"""Whitening the channels of a group."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from anynorm.errors import ShapeError
from anynorm.ops import merged_statistics, whitening
from anynorm.ops.backends.affine import empty, scaled
from anynorm.ops.backends.sync import check_number
from anynorm.ops.backends.tracking import average
from anynorm.ops.call import NormCall
from anynorm.ops.checks import need_real
from anynorm.ops.running import Running
from anynorm.pattern import ResolvedPattern

__all__ = ["run"]


def run(x: Tensor, call: NormCall) -> Tensor:
    """Whiten the channels of each group, with the values folded into matrices (groups, c, m)."""
    need_real(x)
    if x.numel() == 0 and call.ranks is None:
        return empty(x, call)
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # 16 bits are too few for a covariance
        with torch.autocast(device, enabled=False):
            return run(x, call)
    wide = x if x.dtype == torch.float64 else x.float()
    y = _by_running(wide, call) if call.evaluates else _by_own(wide, call)
    return call.epilogue.apply(scaled(y, call).to(x.dtype))


def _by_own(x: Tensor, call: NormCall) -> Tensor:
    """Whiten by the statistics of `x` in the pattern's split view, and let them enter `running`."""
    plan, sizes, ranks, mask = call.plan, call.sizes, call.ranks, call.mask
    order, channel = plan.matrix_order
    moved = x.reshape(plan.view(tuple(x.shape), sizes)).permute(order)
    values = _matrices(moved, channel)
    number: float | Tensor = 1.0
    if ranks is None and mask is None:
        mean, covariance = whitening.moments(values)
    else:
        kept = None if mask is None else _vectors(mask, x, plan, sizes)
        number, mean, covariance = merged_statistics.covariance(values, ranks, kept)
        if kept is not None:
            check_number(x, number, mask)
    if call.running is not None:
        _track(call.running, number, mean, covariance)
    white = _whitened(values, mean, covariance, call)
    back = [order.index(axis) for axis in range(len(order))]
    return white.reshape(moved.shape).permute(back).reshape(x.shape)


def _whitened(values: Tensor, mean: Tensor, covariance: Tensor, call: NormCall) -> Tensor:
    scale = call.spec.scale
    assert scale is not None
    assert scale.root is not None
    root = whitening.inverse_root(covariance, scale.root, call.eps)
    return root @ (values - mean if call.spec.center else values)


def _matrices(moved: Tensor, channel: int) -> Tensor:
    """The values as (groups, c, m), where `channel` is the axis of c."""
    groups, channels = moved.shape[:channel], moved.shape[channel]
    return moved.reshape(math.prod(groups), channels, math.prod(moved.shape[channel + 1 :]))


def _vectors(mask: Tensor, x: Tensor, plan: ResolvedPattern, sizes: Mapping[str, int]) -> Tensor:
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


def _by_running(x: Tensor, call: NormCall) -> Tensor:
    """Whiten by running statistics: evaluation never splits a batch, so any size will do."""
    running, first = call.running, call.plan.first
    assert running is not None
    moved = x.movedim(first, 0)
    values = moved.reshape(*running.var.shape[:2], -1)
    mean = running.mean.to(x.dtype).reshape(*running.var.shape[:2], 1)
    white = _whitened(values, mean, running.var.to(x.dtype), call)
    return white.reshape(moved.shape).movedim(0, first)
