"""Running statistics: what enters them, and normalization by them."""

from __future__ import annotations

import torch
from torch import Tensor

from anynorm import ops
from anynorm.ops import Affine, After, Running
from anynorm.pattern import Plan
from anynorm.spec import Spec

__all__ = ["average", "by_running", "track"]


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


def by_running(
    x: Tensor, plan: Plan, affine: Affine, running: Running, eps: float, after: After
) -> Tensor:
    """Evaluation: every running variance is an s², so batch norm's operator serves them all."""
    first, width = plan.first, running.mean.dim()
    if width == 1 and first == 1:
        return ops.native.batch(x, running, *affine, False, eps, after)
    # The operator wants the axes of the statistics as one, and that one second.
    weight, bias = (p if p is None else p.reshape(-1) for p in affine)
    still = running._replace(mean=running.mean.reshape(-1), var=running.var.reshape(-1))

    def moved(t: Tensor) -> Tensor:
        if width == 0:
            return t.reshape(1, 1, -1)
        return t.flatten(first, first + width - 1).movedim(first, 1)

    if after.residual is not None:
        after = After(moved(after.residual), after.phi)
    y = ops.native.batch(moved(x), still, weight, bias, False, eps, after)
    return (y if width == 0 else y.movedim(1, first)).reshape(x.shape)
