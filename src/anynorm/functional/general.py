"""`normalize`: any specification on any input that fits it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from anynorm import ops
from anynorm.functional.activation import Activation, activate, check_activation
from anynorm.functional.checks import need_axes, need_real, need_several
from anynorm.functional.native import native_operator
from anynorm.functional.whitening import affine, whiten
from anynorm.ops import Running, Statistic
from anynorm.pattern import Plan
from anynorm.spec import Spec

__all__ = ["normalize", "scale_of"]


def normalize(
    x: Tensor,
    spec: Spec,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running: Running | None = None,
    *,
    training: bool = True,
    eps: float = 1e-5,
    sizes: Mapping[str, int] | None = None,
    activation: Activation = None,
) -> Tensor:
    """Normalize `x` by any specification: h = φ(γ · (x − μ) / σ + β), of the shape of `x`.

    `weight` and `bias` start at the pattern's channel axis.  `running` statistics are updated in
    place in training and used in its stead otherwise.  `sizes` gives the parts of split axes.
    Raises `ShapeError` if `x` does not fit the pattern.

    >>> x = torch.randn(4, 6, 5)
    >>> normalize(x, Spec.of("n (g [c]) [...]"), sizes={"g": 2}).shape
    torch.Size([4, 6, 5])
    """
    plan, sizes = spec.pattern.plan(x.dim()), sizes or {}
    if spec.is_identity:
        return activate(affine(x, plan, weight, bias), activation)
    need_axes(x, plan)
    if plan.takes_batch and (training or running is None):
        need_several(x, plan, sizes)
    if spec.scale is not None and spec.scale.root is not None:
        y = whiten(x, spec, spec.scale.root, plan, weight, bias, running, training, eps, sizes)
    elif running is not None and not training:
        y = _with_running(x, plan, weight, bias, running, eps if spec.scale else 0.0)
    elif native := native_operator(x, spec, plan, weight, bias, running):
        y = native(x, weight, bias, running, eps, sizes)
    else:
        return _standardize(x, spec, plan, weight, bias, running, eps, sizes, activation)
    return activate(y, activation)


def scale_of(x: Tensor, spec: Spec, eps: float = 1e-5) -> Tensor:
    """Return σ of `x` under a specification without split axes, 1 in the axes it is taken over.

    >>> scale_of(torch.tensor([[3.0, 4.0]]), Spec.of("o [i]", scale="norm"), eps=0.0)
    tensor([[5.]])
    """
    statistic = _statistic(spec, x, spec.pattern.plan(x.dim()).dims, eps)
    return torch.sqrt(ops.moments(x, statistic)[1] + eps)


def _standardize(
    x: Tensor,
    spec: Spec,
    plan: Plan,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running | None,
    eps: float,
    sizes: Mapping[str, int],
    activation: Activation,
) -> Tensor:
    view = x.reshape(plan.view(tuple(x.shape), sizes)) if plan.splits else x
    check_activation(activation)
    need_real(x)
    fused = activation if isinstance(activation, str) else "identity"
    statistic = _statistic(spec, view, plan.dims, eps)
    weight_, bias_ = (
        p if p is None else p.reshape(plan.affine_view(tuple(p.shape), sizes))
        for p in (weight, bias)
    )
    y, mean, square = ops.standardize(view, weight_, bias_, statistic, fused)
    if running is not None:
        affine = plan.affine_view(tuple(running.mean.shape), sizes)
        _track(running, spec, affine, mean, square, view.numel() // max(mean.numel(), 1))
    y = y.reshape(x.shape) if plan.splits else y
    return y if isinstance(activation, str) else activate(y, activation)


def _statistic(spec: Spec, view: Tensor, dims: Sequence[int], eps: float) -> Statistic:
    scale = spec.scale
    if scale is None:  # σ = 1: only μ is taken away
        return Statistic(list(dims), spec.center, True, 2.0, 0.0, 1.0)
    count = math.prod([view.shape[dim] for dim in dims])
    about_mean = scale.origin == "mean"
    return Statistic(list(dims), spec.center, about_mean, scale.p, scale.factor(count), eps)


def _track(
    running: Running, spec: Spec, affine: list[int], mean: Tensor, square: Tensor, count: int
) -> None:
    """Let statistics of the split view enter the running ones, which lie where γ does.

    They are averaged over the axes that γ does not have (the parts of a ghost batch), and repeated
    over those that they lack.  The variance gets Bessel's correction.
    """
    unbiased = spec.scale is not None and spec.scale.is_standard_deviation
    correction = count / (count - 1) if unbiased and count > 1 else 1.0
    square = torch.ones_like(mean) if spec.scale is None else square * correction
    extra = [axis for axis, size in enumerate(affine) if size == 1]

    def placed(statistic: Tensor) -> Tensor:
        mean = statistic.mean(extra, keepdim=True) if extra else statistic
        return mean.expand(affine).reshape(running.mean.shape)

    running.track(placed(mean), placed(square))


def _with_running(
    x: Tensor,
    plan: Plan,
    weight: Tensor | None,
    bias: Tensor | None,
    running: Running,
    eps: float,
) -> Tensor:
    """Evaluation: every running variance is an s², so batch norm's operator serves them all."""
    first, width = plan.first, running.mean.dim()
    if width == 1 and first == 1:
        return ops.native.batch(x, running, weight, bias, False, eps)
    # The operator wants the axes of the statistics as one, and that one second.
    weight, bias = (p if p is None else p.reshape(-1) for p in (weight, bias))
    still = running._replace(mean=running.mean.reshape(-1), var=running.var.reshape(-1))
    if width == 0:
        return ops.native.batch(x.reshape(1, 1, -1), still, weight, bias, False, eps).view_as(x)
    moved = x.flatten(first, first + width - 1).movedim(first, 1)
    y = ops.native.batch(moved, still, weight, bias, False, eps)
    return y.movedim(1, first).reshape(x.shape)
