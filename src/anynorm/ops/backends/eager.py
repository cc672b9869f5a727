"""The operators of the formula: any specification, on any input that fits its pattern."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from anynorm.errors import AnynormError
from anynorm.ops import dialects
from anynorm.ops.backends import renorm, sync
from anynorm.ops.backends.tracking import track
from anynorm.ops.call import NormCall
from anynorm.ops.checks import need_real
from anynorm.ops.standardize import standardize
from anynorm.ops.types import Affine, Epilogue, Statistic
from anynorm.spec import Spec

__all__ = ["run", "statistic_of"]


def run(x: Tensor, call: NormCall) -> Tensor:
    """Normalize by the statistics of `x`, of all ranks or of the values that count."""
    need_real(x)
    spec, plan, (weight, bias), running, _, eps, sizes, epilogue, _, ranks, mask = call
    view = x
    if plan.splits:
        shape = plan.view(tuple(x.shape), sizes)
        view, residual = x.reshape(shape), epilogue.residual
        epilogue = Epilogue(residual if residual is None else residual.reshape(shape), epilogue.phi)
        mask = mask if mask is None else mask.reshape(plan.part_view(x.shape, mask.shape, sizes))
    if weight is not None:
        weight = weight.reshape(plan.affine_view(tuple(weight.shape), sizes))
    if bias is not None:
        bias = bias.reshape(plan.affine_view(tuple(bias.shape), sizes))
    affine, statistic = Affine(weight, bias), statistic_of(spec, view, plan.dims, eps)
    lies = None if running is None else plan.affine_view(tuple(running.mean.shape), sizes)
    if lies is not None and spec.source != "batch":
        call = call._replace(affine=affine, mask=mask)
        affine = renorm.corrected(view, statistic, call, lies)
    count: float | Tensor
    if ranks is None and (mask is None or (running is None and _ignores(spec, mask, statistic))):
        if not spec.is_plain and dialects.differs(spec.dialect, x):
            y, mean, square = dialects.standardize(view, affine, statistic, spec.dialect, epilogue)
        else:
            y, mean, square = standardize(view, affine, statistic, epilogue)
        count = view.numel() // max(mean.numel(), 1)
    else:
        _need_epsilon_inside(spec)
        call = call._replace(affine=affine, epilogue=epilogue, mask=mask)
        y, mean, square, count = sync.standardize(view, statistic, call)
    if running is not None and lies is not None:
        track(running, spec, lies, mean, square, count)
    return y.reshape(x.shape) if plan.splits else y


def _need_epsilon_inside(spec: Spec) -> None:
    if spec.dialect.eps != "inside":
        raise AnynormError(
            "mask= leaves a statistic only some of its values, and the dialect has "
            f"eps='{spec.dialect.eps}'. With such a mask σ is √(s² + ε): take a Spec with "
            "Dialect(eps='inside'), or leave mask= out."
        )


def _ignores(spec: Spec, mask: Tensor, statistic: Statistic) -> bool:
    """Whether zeros for the values that are masked out do not change the statistics that count.

    In a norm they never do.  Otherwise the mask must leave each statistic all its values or none.
    ε must be positive, so that the statistics of zeros alone are harmless.
    """
    alike = spec.is_norm or all(mask.shape[dim] == 1 for dim in statistic.dims)
    return statistic.eps > 0 and alike


def statistic_of(spec: Spec, view: Tensor, dims: Sequence[int], eps: float) -> Statistic:
    """Return μ and σ of a specification over `dims` as operators take them."""
    scale = spec.scale
    if scale is None:  # σ = 1: only μ is taken away
        return Statistic(list(dims), spec.center, True, 2.0, 0.0, 1.0)
    count = math.prod([view.shape[dim] for dim in dims])
    about_mean = scale.origin == "mean"
    return Statistic(list(dims), spec.center, about_mean, scale.p, scale.factor(count), eps)
