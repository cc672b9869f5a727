"""The formula in float64, and how far a layer may be from it: what the fuzz compares layers with.

It shares the pattern's reading with the library and nothing else: sums over the values that a mask
lets count, autograd for the derivatives.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anynorm.activations import Activation
from anynorm.spec import Spec


class Inputs(NamedTuple):
    """What a layer is called with, and its parameters; all in float64."""

    x: Tensor
    residual: Tensor | None
    mask: Tensor | None  # of the rank of x
    weight: Tensor | None
    bias: Tensor | None


class Statistics(NamedTuple):
    """μ and s² of each set in the split view, and the number of its values."""

    mean: Tensor
    square: Tensor
    count: Tensor


class Layout(NamedTuple):
    """A pattern resolved for one input: its split view and the places of γ and of statistics."""

    view: tuple[int, ...]
    dims: tuple[int, ...]
    beside: tuple[int, ...]


def layout(spec: Spec, x: Tensor, channels: tuple[int, ...], sizes: dict[str, int]) -> Layout:
    plan = spec.pattern.plan(x.dim())
    view = tuple(plan.view(tuple(x.shape), sizes))
    return Layout(view, tuple(plan.dims), tuple(plan.affine_view(channels, sizes)))


def measured(spec: Spec, x: Tensor, mask: Tensor | None, at: Layout) -> Statistics:
    """μ and s² over the values that count; zeros where there are none."""
    dims = list(at.dims)
    values = x.reshape(at.view)
    counts = torch.ones_like(x) if mask is None else mask.expand_as(x).to(x.dtype)
    counts = counts.reshape(at.view)
    number = counts.sum(dims, keepdim=True)
    divisor = number.clamp(min=1)
    mean = (values * counts).sum(dims, keepdim=True) / divisor
    if spec.scale is None:
        return Statistics(mean, torch.ones_like(mean), number)
    away = values - mean if spec.scale.origin == "mean" else values
    magnitude = away.abs() * counts
    if not x.numel():
        square = torch.zeros_like(mean)
    elif math.isinf(spec.scale.p):
        square = magnitude.amax(dims, keepdim=True).square()
    elif spec.scale.p == 2:  # of which the derivative is finite at zero, too
        square = (away.square() * counts).sum(dims, keepdim=True) / divisor
    else:
        power = (magnitude.pow(spec.scale.p) * counts).sum(dims, keepdim=True) / divisor
        square = torch.where(power > 0, power, 1).pow(2 / spec.scale.p) * (power > 0)
    factors = [spec.scale.factor(n) for n in divisor.flatten().tolist()]
    square = square * torch.tensor(factors, dtype=x.dtype).reshape(divisor.shape).square()
    return Statistics(mean if spec.center else torch.zeros_like(mean), square, number)


def normalized(given: Inputs, at: Layout, mean: Tensor, square: Tensor, eps: float) -> Tensor:
    """γ · (x − μ) / σ + β + residual: what φ is applied to."""
    z = (given.x.reshape(at.view) - mean) / torch.sqrt(square + eps)
    if given.weight is not None:
        z = z * given.weight.reshape(at.beside)
    if given.bias is not None:
        z = z + given.bias.reshape(at.beside)
    z = z.reshape(given.x.shape)
    return z if given.residual is None else z + given.residual


def finished(z: Tensor, phi: Activation, mask: Tensor | None) -> Tensor:
    y = phi.forward(z)
    return y if mask is None else torch.where(mask, y, 0)


def moved(
    spec: Spec,
    at: Layout,
    found: Statistics,
    running: dict[str, Tensor],
    momentum: float | None,
    largest: float,
) -> dict[str, Tensor]:
    """The running statistics after a batch, of which each set enters by its number of values.

    A channel whose statistics are beyond the `largest` number of their type stays as it was.
    """
    count, square = found.count, found.square
    unbiased = spec.scale is not None and spec.scale.is_standard_deviation
    if unbiased:
        square = square * count / (count - 1).clamp(min=1)
        count = torch.where(count > 1, count, 0)
    axes = [axis for axis, size in enumerate(at.beside) if size == 1]
    shape = running["running_mean"].shape

    def placed(statistic: Tensor) -> Tensor:
        weights = count.expand_as(statistic)
        total = (statistic * weights).sum(axes, keepdim=True) / weights.sum(axes, keepdim=True)
        return total.expand(at.beside).reshape(shape)

    values = {"running_mean": placed(found.mean), "running_var": placed(square)}
    usable = torch.stack([v.abs() <= largest for v in values.values()]).all(0)
    batches = running["num_batches_tracked"] + usable.any()
    weight = 1 / batches if momentum is None else momentum
    after = {"num_batches_tracked": batches}
    for name, value in values.items():
        there = running[name] + weight * (value - running[name])
        after[name] = torch.where(usable, there, running[name])
    return after


class Allowed(NamedTuple):
    """How far each result may be from the formula's; see :func:`allowed`."""

    y: Tensor
    x: Tensor
    residual: Tensor
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    square: Tensor


def allowed(
    spec: Spec,
    given: Inputs,
    at: Layout,
    found: Statistics,
    dy: Tensor,
    eps: float,
    steepest: float,
    work: float,
    between: float,
) -> Allowed:
    """Roundings of the working type times the sum of the magnitudes of all terms.

    `between` is added to them, for what is rounded to the input's type on the way.

    A term goes through a few roundings, and sums through one for each halving of their values.
    The terms are those of z = γ (x − μ) / σ + β + residual, of dz = φ'(z) dy, where |φ'| is at most
    `steepest` and moves with z's error by at most 1 of it, and of
    dx = (g − mean(g) − (Σ g u) s/σ ∂s/∂d) / σ for g = γ dz.
    """
    x, dims = given.x.reshape(at.view), list(at.dims)
    count = math.prod(at.view[dim] for dim in dims)
    roundings = (8 + math.log2(max(count, 1))) * work + between
    inverse = torch.rsqrt(found.square + eps)
    away = (x - found.mean).abs()
    middle = (
        away.mean(dims, keepdim=True) if x.numel() else found.square
    )  # what μ is off goes by it
    unit = 1 + (middle + away + x.abs()) * inverse
    if spec.scale is not None and spec.scale.origin == "mean" and not spec.center:
        # σ is off by what the deviations lose where the mean is many σ, and x by x / σ of it.
        unit = unit * (1 + x.abs().amax(dims, keepdim=True) * inverse if x.numel() else 1)
    weight = torch.ones(()) if given.weight is None else given.weight.abs().reshape(at.beside)
    z = weight * unit
    if given.bias is not None:
        z = z + given.bias.abs().reshape(at.beside)
    if given.residual is not None:
        z = z + given.residual.abs().reshape(at.view)
    dz = dy.abs().reshape(at.view) * (steepest + z)
    g = weight * dz
    number = found.count.clamp(min=1)
    around = g.sum(dims, keepdim=True) / number + _through_scale(spec, x, found, g * unit, at)
    deviation = found.square  # of which nothing is read where there are no values
    if x.numel():
        away = (x - found.mean).abs() + x.abs()
        deviation = away.amax(dims, keepdim=True)
    return Allowed(
        roundings * (steepest * z.reshape(given.x.shape) + 1),
        roundings * (inverse * (g + around)).reshape(given.x.shape),
        roundings * dz.reshape(given.x.shape),
        _summed(given.weight, roundings * dz * unit, at),
        _summed(given.bias, roundings * dz, at),
        roundings * deviation,
        roundings * 4 * (found.square + deviation.square() * work),
    )


def _through_scale(
    spec: Spec, x: Tensor, found: Statistics, product: Tensor, at: Layout
) -> Tensor | float:
    """(Σ g u) · s/σ · (∂s/∂d + its mean), with a deviation each for what μ is off."""
    if spec.scale is None:
        return 0.0
    dims, p = list(at.dims), spec.scale.p
    number = found.count.clamp(min=1)
    s = found.square.sqrt().clamp_min(1e-150)
    factor = max((spec.scale.factor(n) for n in number.flatten().tolist()), default=1.0)
    away = (x - x.mean(dims, keepdim=True) if spec.scale.origin == "mean" else x).abs()
    if math.isinf(p):
        slope = factor * torch.ones_like(x)
    else:
        slope = factor / number * (factor * (away + s) / s).pow(p - 1)
    slope = slope + slope.sum(dims, keepdim=True) / number
    return product.sum(dims, keepdim=True) / s.clamp_min(1e-30) * slope


def _summed(parameter: Tensor | None, terms: Tensor, at: Layout) -> Tensor | None:
    if parameter is None:
        return None
    return terms.sum_to_size(at.beside).reshape(parameter.shape)


def last_digit(truth: Tensor, dtype: torch.dtype) -> Any:
    """Half a unit of the last digit of a result in its own type, and the smallest numbers'."""
    info = torch.finfo(dtype)
    return info.eps * truth.abs() + info.smallest_normal * max(info.eps, 2**-10)
