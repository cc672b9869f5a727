"""The formula over axes in plain PyTorch, forward and backward: the fallback of every device.

Each function is differentiable by PyTorch itself, which is how the operators get their second
derivatives.  Statistics are taken in float32 for 16-bit inputs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from anynorm.activations import ACTIVATIONS

__all__ = ["Statistic", "backward", "forward", "moments"]


class Statistic(NamedTuple):
    """Which μ and σ, over which axes of the input, as operators pass it on.

    `factor` is the constant C of :class:`anynorm.spec.Scale` for the number of values at hand.
    """

    dims: list[int]
    center: bool
    about_mean: bool
    p: float
    factor: float
    eps: float


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, statistic: Statistic, phi: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h = φ(γ · (x − μ) / σ + β) with μ and s², which keep the reduced axes at size 1."""
    wide = widen(x)
    mean, square = moments(wide, statistic)
    z = _affine((wide - mean) * torch.rsqrt(square + statistic.eps), weight, bias)
    return ACTIVATIONS[phi].forward(z).to(x.dtype), mean, square


def moments(x: Tensor, statistic: Statistic) -> tuple[Tensor, Tensor]:
    """Return μ (zeros where nothing is subtracted) and s², the square of the measured scale."""
    dims, p = statistic.dims, statistic.p
    mean = x.mean(dims, keepdim=True)
    d = x - mean if statistic.about_mean else x
    if math.isinf(p):
        square = d.abs().amax(dims, keepdim=True).square()
    elif p == 2:
        square = d.square().mean(dims, keepdim=True)
    else:
        square = d.abs().pow(p).mean(dims, keepdim=True).pow(2.0 / p)
    return mean if statistic.center else torch.zeros_like(mean), square * statistic.factor**2


def backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    square: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    phi: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dγ and dβ (empty where there is no γ or β), from μ and s² of the forward."""
    inverse = torch.rsqrt(square + statistic.eps)
    wide = widen(x)
    unit = (wide - mean) * inverse
    dz = ACTIVATIONS[phi].backward(widen(dy), _affine(unit, weight, bias))
    g = dz if weight is None else dz * weight
    dx = _through_statistics(g, unit, wide, square, inverse, statistic)
    return dx.to(x.dtype), _sum_like(dz * unit, weight), _sum_like(dz, bias)


def _through_statistics(
    g: Tensor,
    unit: Tensor,
    x: Tensor,
    square: Tensor,
    inverse: Tensor,
    statistic: Statistic,
) -> Tensor:
    """The gradient of x from that of the unit values, through the values, σ and μ."""
    dims = statistic.dims
    d = _less_mean(x, dims) if statistic.about_mean else x
    dsigma = -(g * unit).sum(dims, keepdim=True) * inverse
    via_sigma = dsigma * inverse * _scale_gradient(d, square, statistic)
    direct = g * inverse
    if statistic.center and statistic.about_mean:
        return _less_mean(direct + via_sigma, dims)
    direct = _less_mean(direct, dims) if statistic.center else direct
    return direct + (_less_mean(via_sigma, dims) if statistic.about_mean else via_sigma)


def _less_mean(x: Tensor, dims: list[int]) -> Tensor:
    """x − mean(x), which is also the derivative of that map."""
    return x - x.mean(dims, keepdim=True)


def _scale_gradient(d: Tensor, square: Tensor, statistic: Statistic) -> Tensor:
    """s · ∂s/∂d for s = C · (mean |d|^p)^(1/p)."""
    dims, p, factor = statistic.dims, statistic.p, statistic.factor
    if math.isinf(p):
        magnitude = d.abs()
        largest = magnitude == magnitude.amax(dims, keepdim=True)
        share = largest / largest.sum(dims, keepdim=True)
        return factor * square.sqrt() * share * d.sign()
    count = math.prod(d.shape[dim] for dim in dims)
    if p == 2:
        return d * (factor**2 / count)
    # C^p s^(2−p) |d|^(p−1) as s · C · (C|d|/s)^(p−1), which neither over- nor underflows.
    scale = torch.where(square > 0, square, 1).sqrt()
    relative = (factor * d.abs() / scale).pow(p - 1)
    return square.sqrt() * relative * d.sign() * (factor / count)


def widen(x: Tensor) -> Tensor:
    """The type that statistics are taken in: at least float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _affine(unit: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        unit = unit * weight
    return unit if bias is None else unit + bias


def _sum_like(grad: Tensor, parameter: Tensor | None) -> Tensor:
    if parameter is None:
        return grad.new_empty(0)
    return grad.sum_to_size(parameter.shape).to(parameter.dtype)
