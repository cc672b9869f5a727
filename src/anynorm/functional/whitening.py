"""Whitening the channels of a group."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from anynorm import ops
from anynorm.functional.checks import need_real
from anynorm.ops import Running
from anynorm.pattern import Plan
from anynorm.spec import Spec

__all__ = ["affine", "whiten"]


def whiten(
    x: Tensor,
    spec: Spec,
    root: str,
    plan: Plan,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    training: bool,
    eps: float,
    sizes: Mapping[str, int],
) -> Tensor:
    """Whiten the channels of each group, with the values folded into matrices (groups, c, m)."""
    need_real(x)
    if x.numel() == 0:
        return x.clone()
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # 16 bits are too few for a covariance
        with torch.autocast(device, enabled=False):
            return whiten(x, spec, root, plan, weight, bias, running, training, eps, sizes)
    view = x.reshape(plan.view(tuple(x.shape), sizes))
    order, channel = plan.matrix_order
    moved = view.permute(order)
    values = moved.reshape(-1, moved.shape[channel], math.prod(moved.shape[channel + 1 :]))
    values = values if values.dtype == torch.float64 else values.float()
    if training or running is None:
        mean, covariance = ops.whitening.moments(values)
        if running is not None:
            _track_covariance(running, mean, covariance)
    else:
        mean, covariance = _running_covariance(running, values)
    centred = values - mean if spec.center else values
    white = ops.whitening.inverse_root(covariance, root, eps) @ centred
    back = [order.index(axis) for axis in range(len(order))]
    y = white.reshape(moved.shape).permute(back).reshape(x.shape)
    return affine(y, plan, weight, bias).to(x.dtype)


def _track_covariance(running: Running, mean: Tensor, covariance: Tensor) -> None:
    """Average over the parts of a split batch, which are folded in front of the groups."""
    mean = mean.reshape(-1, *running.mean.shape).mean(0)
    running.track(mean, covariance.reshape(-1, *running.var.shape).mean(0))


def _running_covariance(running: Running, values: Tensor) -> tuple[Tensor, Tensor]:
    """The running mean and covariance for each of the folded matrices."""
    groups, channels = running.var.shape[:2]
    parts = values.shape[0] // groups
    mean = running.mean.reshape(groups, channels, 1).to(values.dtype)
    return mean.repeat(parts, 1, 1), running.var.to(values.dtype).repeat(parts, 1, 1)


def affine(x: Tensor, plan: Plan, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return γ · x + β, with γ and β starting at the pattern's channel axis."""
    after = x.dim() - plan.first
    if weight is not None:
        x = x * weight.reshape(*weight.shape, *[1] * (after - weight.dim()))
    if bias is not None:
        x = x + bias.reshape(*bias.shape, *[1] * (after - bias.dim()))
    return x
