"""What enters running statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from anynorm.ops.running import Running
from anynorm.spec import Spec

__all__ = ["average", "track"]


def track(
    running: Running,
    spec: Spec,
    affine: list[int],
    mean: Tensor,
    square: Tensor,
    count: float | Tensor,
) -> None:
    """Let statistics of the split view enter the running ones, which lie where γ does.

    They are averaged over the axes that γ does not have (the parts of a ghost batch), and repeated
    over those that they lack.  The variance gets Bessel's correction.
    """
    unbiased = spec.scale is not None and spec.scale.is_standard_deviation
    square = torch.ones_like(mean) if spec.scale is None else square
    correction = 1.0
    if isinstance(count, Tensor):  # read on the device only
        square = square * (count / (count - 1).clamp(min=1)) if unbiased else square
        count = torch.where(count > 1, count, 0) if unbiased else count
    elif unbiased and count > 1:
        correction = count / (count - 1)
    extra = [axis for axis, size in enumerate(affine) if size == 1]

    def placed(statistic: Tensor) -> Tensor:
        return average(statistic, count, extra).expand(affine).reshape(running.mean.shape)

    running.track(placed(mean), placed(square), correction)


def average(parts: Tensor, count: float | Tensor, axes: list[int]) -> Tensor:
    """The average over `axes`, of which each part enters by its number of values.

    Not a number where there are none, which running statistics do not take in.

    >>> average(torch.tensor([1.0, 4.0]), torch.tensor([2, 1]), [0])
    tensor([2.])
    """
    axes = [axis for axis in axes if parts.shape[axis] != 1]
    if not isinstance(count, Tensor):
        return parts.mean(axes, keepdim=True) if axes else parts
    weights = count.expand_as(parts)
    whole, number = parts * weights, weights
    if axes:
        whole, number = (t.sum(axes, keepdim=True) for t in (whole, number))
    return whole / number
