"""Any specification on any input that fits it, where torch has no operator for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from anynorm import ops
from anynorm.functional import pooled
from anynorm.functional.checks import need_axes, need_real, need_several
from anynorm.functional.running import by_running, track
from anynorm.functional.whitening import scaled, whiten
from anynorm.ops import Affine, After, Running, Statistic
from anynorm.ops.ranks import Ranks
from anynorm.pattern import Plan
from anynorm.spec import Spec

__all__ = ["by_formula", "need_statistics", "statistic_of"]


def by_formula(
    x: Tensor,
    spec: Spec,
    plan: Plan,
    affine: Affine,
    running: Running | None,
    training: bool,
    eps: float,
    sizes: Mapping[str, int],
    after: After,
    ranks: Ranks | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Normalize `x`, which is 0 where a `mask` (of its rank) says that values do not count."""
    if spec.is_identity:
        return after.apply(scaled(x, plan, affine))
    if ranks is None and (training or running is None):
        need_statistics(x, plan, sizes)
    else:
        need_axes(x, plan)
    if spec.scale is not None and spec.scale.root is not None:
        given = spec, spec.scale.root, plan, affine, running, training, eps, sizes, ranks, mask
        return after.apply(whiten(x, *given))
    if running is not None and not training:
        return by_running(x, plan, affine, running, eps if spec.scale else 0.0, after)
    return _standardize(x, spec, plan, affine, running, eps, sizes, after, ranks, mask)


def need_statistics(x: Tensor, plan: Plan, sizes: Mapping[str, int]) -> None:
    """Raise if `x` has nothing to take statistics over."""
    need_axes(x, plan)
    if plan.takes_batch:
        need_several(x, plan, sizes)


def _standardize(
    x: Tensor,
    spec: Spec,
    plan: Plan,
    affine: Affine,
    running: Running | None,
    eps: float,
    sizes: Mapping[str, int],
    after: After,
    ranks: Ranks | None,
    mask: Tensor | None,
) -> Tensor:
    need_real(x)
    view, residual = x, after.residual
    if plan.splits:
        shape = plan.view(tuple(x.shape), sizes)
        view = x.reshape(shape)
        after = After(residual if residual is None else residual.reshape(shape), after.phi)
        mask = mask if mask is None else mask.reshape(plan.part_view(x.shape, mask.shape, sizes))
    weight, bias = (
        p if p is None else p.reshape(plan.affine_view(tuple(p.shape), sizes)) for p in affine
    )
    affine = Affine(weight, bias)
    statistic = statistic_of(spec, view, plan.dims, eps)
    count: float | Tensor
    if ranks is None and (mask is None or (running is None and _all_or_none(mask, statistic))):
        y, mean, square = ops.standardize(view, affine, statistic, after)
        count = view.numel() // max(mean.numel(), 1)
    else:
        y, mean, square, count = pooled.standardize(
            view, affine, spec.scale, statistic, after, ranks, mask, plan.takes_batch
        )
    if running is not None:
        lies = plan.affine_view(tuple(running.mean.shape), sizes)
        track(running, spec, lies, mean, square, count)
    return y.reshape(x.shape) if plan.splits else y


def _all_or_none(mask: Tensor, statistic: Statistic) -> bool:
    """Whether each statistic has all its values or none, and one of zeros does no harm."""
    return statistic.eps > 0 and all(mask.shape[dim] == 1 for dim in statistic.dims)


def statistic_of(spec: Spec, view: Tensor, dims: Sequence[int], eps: float) -> Statistic:
    """Return μ and σ of a specification over `dims` as operators take them."""
    scale = spec.scale
    if scale is None:  # σ = 1: only μ is taken away
        return Statistic(list(dims), spec.center, True, 2.0, 0.0, 1.0)
    count = math.prod([view.shape[dim] for dim in dims])
    about_mean = scale.origin == "mean"
    return Statistic(list(dims), spec.center, about_mean, scale.p, scale.factor(count), eps)
