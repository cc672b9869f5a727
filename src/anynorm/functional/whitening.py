"""Whitening the channels of a group."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from anynorm import ops
from anynorm.functional.checks import need_real
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
) -> Tensor:
    """Whiten the channels of each group, with the values folded into matrices (groups, c, m)."""
    need_real(x)
    if x.numel() == 0 and ranks is None:
        return x.clone()
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # 16 bits are too few for a covariance
        with torch.autocast(device, enabled=False):
            return whiten(x, spec, root, plan, affine, running, training, eps, sizes, ranks)
    wide = x if x.dtype == torch.float64 else x.float()
    if running is not None and not training:
        y = _by_running(wide, spec, root, plan, running, eps)
    else:
        y = _by_own(wide, spec, root, plan, running, eps, sizes, ranks)
    return scaled(y, plan, affine).to(x.dtype)


def _by_own(
    x: Tensor,
    spec: Spec,
    root: str,
    plan: Plan,
    running: Running | None,
    eps: float,
    sizes: Mapping[str, int],
    ranks: Ranks | None = None,
) -> Tensor:
    """Whiten by the statistics of `x` in the pattern's split view, and let them enter `running`."""
    order, channel = plan.matrix_order
    moved = x.reshape(plan.view(tuple(x.shape), sizes)).permute(order)
    groups, values_of_each = moved.shape[:channel], moved.shape[channel + 1 :]
    channels = moved.shape[channel]
    values = moved.reshape(math.prod(groups), channels, math.prod(values_of_each))
    if ranks is None:
        mean, covariance = ops.whitening.moments(values)
    else:
        mean, covariance = ops.synced.covariance(values, ranks)
    if running is not None:  # averaged over the parts of a split batch, which lie in front
        mean_ = mean.reshape(-1, *running.mean.shape).mean(0)
        running.track(mean_, covariance.reshape(-1, *running.var.shape).mean(0))
    white = ops.whitening.inverse_root(covariance, root, eps) @ (
        values - mean if spec.center else values
    )
    back = [order.index(axis) for axis in range(len(order))]
    return white.reshape(moved.shape).permute(back).reshape(x.shape)


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
