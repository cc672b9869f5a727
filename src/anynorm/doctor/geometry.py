"""Which values of an input share statistics and channels in a normalization layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from anynorm import nn as own
from anynorm.errors import ShapeError
from anynorm.surgery.normalizers import Normalizer

__all__ = ["double", "epsilon", "group_values", "rows_of", "sets_of", "shares_batch"]


def shares_batch(norm: Normalizer) -> bool:
    """Whether the layer takes its statistics from all samples of a batch in training."""
    return norm.spec.uses_batch and not norm.constant


def double(x: Tensor) -> Tensor:
    """`x` in float64, which Apple's GPUs do not have."""
    return (x.detach().cpu() if x.device.type == "mps" else x.detach()).double()


def epsilon(module: nn.Module) -> float:
    """The ε of a layer. Some frozen layers do not expose it; it is then torch's default."""
    return float(getattr(module, "eps", 1e-5))


def rows_of(norm: Normalizer, x: Tensor) -> Tensor:
    """`x` as (samples, positions, channels), by the axes of the layer's γ.

    >>> from anynorm.surgery.normalizers import normalizers
    >>> [norm] = normalizers(own.BatchNorm2d(3))
    >>> rows_of(norm, torch.zeros(8, 3, 4, 5)).shape
    torch.Size([8, 20, 3])
    """
    shape = getattr(norm.layer, "normalized_shape", None)
    if shape is not None:
        x = x.reshape(*x.shape[: x.dim() - len(shape)], -1)
    elif not norm.takes_last_axis:
        x = (x if x.dim() > 1 else x[None]).movedim(1, -1)
    x = x.detach()
    samples = len(x) if x.dim() > 1 else 1
    return x.reshape(samples, -1, x.shape[-1])


def group_values(norm: Normalizer, x: Tensor, mask: Tensor | None = None) -> tuple[int, int]:
    """How many values of `x` share one μ and σ when the layer takes them from its input.

    The fewest and the most, which differ where a mask leaves values out; a μ and σ of none is none.

    >>> from anynorm.surgery.normalizers import normalizers
    >>> [norm] = normalizers(own.GroupNorm(2, 6))
    >>> group_values(norm, torch.zeros(8, 6, 4, 5))
    (60, 60)
    """
    if mask is None:
        return (_values(norm, tuple(x.shape)),) * 2
    numbers = _numbers(norm, x, mask)
    some = numbers[numbers > 0]
    return (int(some.min()), int(some.max())) if len(some) else (0, 0)


def _values(norm: Normalizer, shape: tuple[int, ...]) -> int:
    module = norm.layer
    if isinstance(module, own.Norm):
        return _by_pattern(module, shape)
    if (normalized := getattr(module, "normalized_shape", None)) is not None:
        return math.prod(normalized)
    if (groups := getattr(module, "num_groups", None)) is not None:
        return math.prod(shape[1:]) // int(groups)
    if norm.family == "instance":
        return math.prod(shape) // (math.prod(shape[:2]) if _batched(norm, shape) else shape[0])
    return math.prod(shape) // norm.channels


def _numbers(norm: Normalizer, x: Tensor, mask: Tensor) -> Tensor:
    """The number of values of each μ and σ, by the pattern."""
    return sets_of(norm, mask.expand_as(x)).sum(1)


def sets_of(norm: Normalizer, x: Tensor) -> Tensor:
    """`x` as (sets, values): each row has the values that share one μ and σ.

    >>> from anynorm.surgery.normalizers import normalizers
    >>> [norm] = normalizers(own.GroupNorm(2, 6))
    >>> sets_of(norm, torch.zeros(8, 6, 4, 5)).shape
    torch.Size([16, 60])
    """
    layer, pattern = norm.layer, norm.spec.pattern
    if isinstance(layer, own.Norm):
        sizes = layer.sizes
    elif (shape := getattr(layer, "normalized_shape", None)) is not None:
        return x.reshape(-1, math.prod(shape))
    else:
        sizes = {"g": getattr(layer, "num_groups", 1)}
        x = x[None] if norm.family == "instance" and not _batched(norm, tuple(x.shape)) else x
    plan = pattern.plan(x.dim())
    try:
        view = x.reshape(plan.view(tuple(x.shape), sizes))
    except ShapeError:  # a ghost batch that this batch is no multiple of
        return x.reshape(1, -1)[:, : math.prod(sizes.values())]
    last = [axis for axis in range(view.dim()) if axis not in plan.dims]
    values = math.prod(view.shape[axis] for axis in plan.dims)
    return view.permute(*last, *plan.dims).reshape(-1, values)


def _batched(norm: Normalizer, shape: tuple[int, ...]) -> bool:
    """Instance norm takes a single sample without the batch's axis, too."""
    digits = [char for char in type(norm.layer).__name__ if char.isdigit()]
    return not digits or len(shape) == int(digits[0]) + 2


def _by_pattern(module: own.Norm, shape: tuple[int, ...]) -> int:
    plan = module.spec.pattern.plan(len(shape))
    try:
        view = plan.view(shape, module.sizes)
    except ShapeError:  # a ghost batch that this batch is no multiple of
        return math.prod(module.sizes.values())
    return math.prod(view[axis] for axis in plan.dims)
