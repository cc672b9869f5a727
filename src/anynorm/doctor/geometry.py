"""Which values of an input share statistics and channels in a normalization layer."""

from __future__ import annotations

import math

from torch import Tensor

from anynorm import nn as own
from anynorm.errors import ShapeError
from anynorm.surgery.normalizers import Normalizer

__all__ = ["double", "group_values", "rows_of", "shares_batch"]


def shares_batch(norm: Normalizer) -> bool:
    """Whether the layer takes its statistics from all samples of a batch in training."""
    if isinstance(norm.module, own.Norm):
        return norm.module.spec.uses_batch
    return norm.family == "batch"


def double(x: Tensor) -> Tensor:
    """`x` in float64, which Apple's GPUs do not have."""
    return (x.detach().cpu() if x.device.type == "mps" else x.detach()).double()


def rows_of(norm: Normalizer, x: Tensor) -> Tensor:
    """`x` in float64 as (samples, positions, channels), by the axes of the layer's γ.

    >>> from anynorm.surgery.normalizers import normalizers
    >>> [norm] = normalizers(own.BatchNorm2d(3))
    >>> rows_of(norm, torch.zeros(8, 3, 4, 5)).shape
    torch.Size([8, 20, 3])
    """
    shape = getattr(norm.module, "normalized_shape", None)
    if shape is not None:
        x = x.reshape(*x.shape[: x.dim() - len(shape)], -1)
    elif not norm.takes_last_axis:
        x = (x if x.dim() > 1 else x[None]).movedim(1, -1)
    x = double(x)
    samples = len(x) if x.dim() > 1 else 1
    return x.reshape(samples, -1, x.shape[-1])


def group_values(norm: Normalizer, x: Tensor) -> int:
    """How many values of `x` share one μ and σ when the layer takes them from its input.

    >>> from anynorm.surgery.normalizers import normalizers
    >>> [norm] = normalizers(own.GroupNorm(2, 6))
    >>> group_values(norm, torch.zeros(8, 6, 4, 5))
    60
    """
    module, shape = norm.module, tuple(x.shape)
    if isinstance(module, own.Norm):
        return _by_pattern(module, shape)
    if (normalized := getattr(module, "normalized_shape", None)) is not None:
        return math.prod(normalized)
    if (groups := getattr(module, "num_groups", None)) is not None:
        return math.prod(shape[1:]) // int(groups)
    if norm.family == "instance":
        return math.prod(shape) // (math.prod(shape[:2]) if _batched(norm, shape) else shape[0])
    return math.prod(shape) // norm.channels


def _batched(norm: Normalizer, shape: tuple[int, ...]) -> bool:
    """Instance norm takes a single sample without the batch's axis, too."""
    digits = [char for char in type(norm.module).__name__ if char.isdigit()]
    return not digits or len(shape) == int(digits[0]) + 2


def _by_pattern(module: own.Norm, shape: tuple[int, ...]) -> int:
    plan = module.spec.pattern.plan(len(shape))
    try:
        view = plan.view(shape, module.sizes)
    except ShapeError:  # a ghost batch that this batch is no multiple of
        return math.prod(module.sizes.values())
    return math.prod(view[axis] for axis in plan.dims)
