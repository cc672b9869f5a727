"""`normalize`: any specification on any input that fits it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from anynorm import ops
from anynorm.functional.activation import Activation, check_activation, finish, following
from anynorm.functional.checks import need_axes, need_real, need_several
from anynorm.functional.native import native_operator
from anynorm.functional.synced import standardize, together
from anynorm.functional.whitening import scaled, whiten
from anynorm.ops import Affine, After, Running, Statistic
from anynorm.ops.ranks import Ranks, Sync
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
    residual: Tensor | None = None,
    sync: Sync = None,
    layer: str = "",
) -> Tensor:
    """Normalize `x` by any specification: h = φ(γ · (x − μ) / σ + β + residual), of its shape.

    `weight` and `bias` start at the pattern's channel axis.  `running` statistics are updated in
    place in training and used in its stead otherwise.  `sizes` gives the parts of split axes.
    `activation`: φ, the name of one in :data:`anynorm.activations.ACTIVATIONS` or a function;
    `residual`: a tensor of the shape and type of `x`.  `sync`: whose values the statistics of a
    batch are taken over in training, those of all processes if True, of a process group, of a
    dimension of a device mesh, or of a number of consecutive ranks; `layer` is what errors call
    it.  Raises `ShapeError` if `x` does not fit the pattern, or the residual `x`;
    `CollectiveError` if a collective fails.

    >>> x = torch.randn(4, 6, 5)
    >>> normalize(x, Spec.of("n (g [c]) [...]"), sizes={"g": 2}).shape
    torch.Size([4, 6, 5])
    """
    check_activation(activation)
    plan, affine = spec.pattern.plan(x.dim()), Affine(weight, bias)
    after = following(x, residual, activation)
    ranks = together(spec, plan, sync, layer, x) if training else None
    y = _normalize(x, spec, plan, affine, running, training, eps, sizes or {}, after, ranks)
    return finish(y, activation)


def _normalize(
    x: Tensor,
    spec: Spec,
    plan: Plan,
    affine: Affine,
    running: Running | None,
    training: bool,
    eps: float,
    sizes: Mapping[str, int],
    after: After,
    ranks: Ranks | None,
) -> Tensor:
    if spec.is_identity:
        return after.apply(scaled(x, plan, affine))
    need_axes(x, plan)
    if plan.takes_batch and (training or running is None) and ranks is None:
        need_several(x, plan, sizes)
    if spec.scale is not None and spec.scale.root is not None:
        y = whiten(x, spec, spec.scale.root, plan, affine, running, training, eps, sizes, ranks)
        return after.apply(y)
    if running is not None and not training:
        return _with_running(x, plan, affine, running, eps if spec.scale else 0.0, after)
    if ranks is None and (native := native_operator(x, spec, plan, affine, running)):
        return native(x, affine, running, eps, sizes, after)
    return _standardize(x, spec, plan, affine, running, eps, sizes, after, ranks)


def scale_of(x: Tensor, spec: Spec, eps: float = 1e-5) -> Tensor:
    """Return σ of `x` under a specification without split axes, 1 in the axes it is taken over.

    >>> scale_of(torch.tensor([[3.0, 4.0]]), Spec.of("o [i]", scale="norm"), eps=0.0)
    tensor([[5.]])
    """
    statistic = _statistic(spec, x, spec.pattern.plan(x.dim()).dims, eps)
    return torch.sqrt(ops.moments(x, statistic)[1] + eps).to(x.dtype)


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
) -> Tensor:
    need_real(x)
    view, residual = x, after.residual
    if plan.splits:
        shape = plan.view(tuple(x.shape), sizes)
        view = x.reshape(shape)
        after = After(residual if residual is None else residual.reshape(shape), after.phi)
    weight, bias = (
        p if p is None else p.reshape(plan.affine_view(tuple(p.shape), sizes)) for p in affine
    )
    affine = Affine(weight, bias)
    count: float | Tensor
    if ranks is not None:
        y, mean, square, count = standardize(view, affine, spec, plan.dims, eps, after, ranks)
    else:
        statistic = _statistic(spec, view, plan.dims, eps)
        y, mean, square = ops.standardize(view, affine, statistic, after)
        count = view.numel() // max(mean.numel(), 1)
    if running is not None:
        lies = plan.affine_view(tuple(running.mean.shape), sizes)
        _track(running, spec, lies, mean, square, count)
    return y.reshape(x.shape) if plan.splits else y


def _statistic(spec: Spec, view: Tensor, dims: Sequence[int], eps: float) -> Statistic:
    scale = spec.scale
    if scale is None:  # σ = 1: only μ is taken away
        return Statistic(list(dims), spec.center, True, 2.0, 0.0, 1.0)
    count = math.prod([view.shape[dim] for dim in dims])
    about_mean = scale.origin == "mean"
    return Statistic(list(dims), spec.center, about_mean, scale.p, scale.factor(count), eps)


def _track(
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
    if isinstance(count, Tensor):  # of all ranks, read on the device only
        square = square * (count / (count - 1).clamp(min=1)) if unbiased else square
    elif unbiased and count > 1:
        correction = count / (count - 1)
    extra = [axis for axis, size in enumerate(affine) if size == 1]

    def placed(statistic: Tensor) -> Tensor:
        mean = statistic.mean(extra, keepdim=True) if extra else statistic
        return mean.expand(affine).reshape(running.mean.shape)

    running.track(placed(mean), placed(square), correction)


def _with_running(
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
