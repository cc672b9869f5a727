"""Statistics with a padding mask or over several processes, and the derivative through them.

A mask excludes values: they are 0 in the input, and the gradient of their outputs is 0.  If ranks
share statistics, each rank sends its count, mean and second moment in one collective, merges those
of all ranks in the order of ranks, and normalizes by :mod:`anynorm.ops.normalize`.  A scale about
the mean other than the standard deviation needs two collectives, because its deviations are taken
from the mean of all ranks.  Backward needs one collective.  The gradients of γ and β are those of
the rank's own values: DDP averages them like all other parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from anynorm.ops import formula, whitening
from anynorm.ops.merge import merge
from anynorm.ops.moments import measure
from anynorm.ops.normalize import gradients, keeping, normalize
from anynorm.ops.process_groups import Ranks, gather, reduce
from anynorm.ops.types import Affine, Epilogue, Saved, Statistic

__all__ = ["MergedStatistics", "blank", "counted", "covariance", "normalized", "pool"]


class MergedStatistics(NamedTuple):
    """The statistics of all ranks' values that count: their number, their mean, and s² for C = 1.

    μ and s² keep the reduced axes at size 1; the number has their shape where a mask makes it
    differ, else size 1 in every axis.
    """

    number: Tensor
    mean: Tensor
    square: Tensor


@torch.no_grad()
def pool(
    x: Tensor, statistic: Statistic, ranks: Ranks | None = None, mask: Tensor | None = None
) -> MergedStatistics:
    """Return the statistics of `x`, of any shape, on all ranks; a rank may have no values.

    `mask`: which values count, a bool tensor that broadcasts against `x`, which is 0 elsewhere.
    Where none does, the mean and s² are 0.
    """
    x = x.detach()
    if not statistic.about_mean or statistic.p == 2:
        return _exchange(x, statistic, ranks, mask)
    number, mean, _ = _exchange(x, statistic._replace(p=2.0), ranks, mask)
    away = blank(formula.deviations(formula.widen(x), mean), mask)
    about_zero = statistic._replace(about_mean=False)
    return MergedStatistics(number, mean, _exchange(away, about_zero, ranks, mask).square)


def blank(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return `x` with 0 for the values that do not count, whatever they are.

    >>> blank(torch.tensor([1.0, torch.nan]), torch.tensor([True, False]))
    tensor([1., 0.])
    """
    return x if mask is None else torch.where(mask, x, 0)


def counted(mask: Tensor, shape: Sequence[int], dims: Sequence[int]) -> Tensor:
    """Return how many values of an input of `shape` a mask lets count, with size 1 in `dims`.

    >>> counted(torch.tensor([[True, False]]), (3, 2), [0])
    tensor([[3, 0]])
    """
    repeats = math.prod([shape[dim] for dim in dims if mask.shape[dim] == 1])
    number = mask.sum(list(dims), keepdim=True) * repeats
    return number.expand(formula.reduced_shape(shape, dims))


def _exchange(
    x: Tensor, statistic: Statistic, ranks: Ranks | None, mask: Tensor | None
) -> MergedStatistics:
    """One collective, where there are ranks."""
    found = _of_own(x, statistic._replace(center=True, factor=1.0), mask)
    if ranks is None:
        return found
    number, shares, (means, squares) = _told(found.number, found[1:], ranks)
    if statistic.about_mean:
        return MergedStatistics(number, *merge(shares, means, shares * squares)[1:])
    middle = (shares * means).sum(0)
    return MergedStatistics(number, middle, _averaged(shares, squares, statistic.p))


def _of_own(x: Tensor, statistic: Statistic, mask: Tensor | None) -> MergedStatistics:
    """The moments of this rank's values; zeros where it has none."""
    if x.numel() == 0:
        shape = formula.reduced_shape(x.shape, statistic.dims)
        nothing = x.new_zeros(shape, dtype=formula.accurate(x))
        number = nothing if mask is not None else nothing.new_zeros([1] * x.dim())
        return MergedStatistics(number, nothing, nothing)
    if mask is not None:
        return _of_those_that_count(x, statistic, mask)
    mean, square = measure(x, statistic)
    return MergedStatistics(mean.new_full([1] * x.dim(), x.numel() // mean.numel()), mean, square)


def _of_those_that_count(x: Tensor, statistic: Statistic, mask: Tensor) -> MergedStatistics:
    """From the moments of all values, among which those that do not count are 0."""
    number = counted(mask, x.shape, statistic.dims).to(formula.accurate(x))
    some = number.clamp(min=1)
    share = some / math.prod([x.shape[dim] for dim in statistic.dims])
    if not statistic.about_mean:
        mean, square = measure(x, statistic)
        return MergedStatistics(number, mean / share, square / share.pow(2 / statistic.p))
    # Of what is left of a number near the mean: many equal values in a sum round to one side.
    x = formula.widen(x)
    level = (x.sum(statistic.dims, keepdim=True) / some).to(x.dtype)
    mean, square = measure(blank(x - level, mask), statistic)
    own_mean = mean / share
    own_square = (square + mean.square()) / share - own_mean.square()
    return MergedStatistics(number, level + own_mean, own_square.clamp(min=0))


def _told(
    number: Tensor, parts: Sequence[Tensor], ranks: Ranks
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The number of all, each rank's share in it, and its `parts`, with the ranks as first axis."""
    sent = [number, *parts]
    rows = gather(torch.cat([part.reshape(-1) for part in sent]), ranks)
    split = rows.split([part.numel() for part in sent], 1)
    pairs = zip(split, sent, strict=True)
    numbers, *others = (of_rank.reshape(-1, *part.shape) for of_rank, part in pairs)
    total = numbers.sum(0)
    return total, numbers / total.clamp(min=1), others


def _averaged(shares: Tensor, squares: Tensor, p: float) -> Tensor:
    if math.isinf(p):  # a rank without values says zero
        return squares.amax(0)
    if p == 2:
        return (shares * squares).sum(0)
    return (shares * squares.pow(p / 2)).sum(0).pow(2 / p)


def normalized(
    x: Tensor,
    affine: Affine,
    pooled: MergedStatistics,
    statistic: Statistic,
    epilogue: Epilogue,
    factor: float | Tensor,
    ranks: Ranks | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h = φ(γ · (x − μ) / σ + β + residual), μ and s² by the statistics of :func:`pool`.

    Shapes as for :func:`anynorm.ops.standardize`; `factor` is the constant C for their number, in
    place of that in `statistic`.  Only h is differentiable, and once; its derivative goes through
    the statistics to the values of every rank.  For values that do not count h and the gradient of
    x are of no use, and the gradient of h must be 0.
    """
    scale = torch.as_tensor(factor, dtype=pooled.mean.dtype, device=x.device)
    y, mean, square = _Normalized.apply(
        x,
        epilogue.residual,
        *affine,
        *pooled,
        scale,
        mask,
        tuple(statistic),
        epilogue.phi,
        None if ranks is None else tuple(ranks),
    )
    return y, mean, square


class _Normalized(torch.autograd.Function):
    """Normalization by given statistics that knows how these depend on x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        count: Tensor,
        middle: Tensor,
        measured: Tensor,
        factor: Tensor,
        mask: Tensor | None,
        statistic: Any,
        phi: str,
        ranks: Any,
    ) -> Any:
        _, center, *_, eps = statistic
        mean = middle if center else torch.zeros_like(middle)
        square = measured * factor.square()
        epilogue = Epilogue(residual, phi)
        y, sign_mask = keeping(x, mean, square, Affine(weight, bias), eps, epilogue)
        read = residual if formula.needs_residual(epilogue) else None
        saved = Saved(x, read, sign_mask, mean, square, weight, bias)
        ctx.save_for_backward(*saved, count, middle, measured, factor, mask)
        ctx.statistic, ctx.phi, ctx.ranks = statistic, phi, ranks
        ctx.mark_non_differentiable(mean, square)
        return y, mean, square

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Any:
        *tensors, count, middle, measured, factor, mask = ctx.saved_tensors
        saved, pooled = Saved(*tensors), MergedStatistics(count, middle, measured)
        statistic = Statistic(*ctx.statistic)._replace(factor=factor)
        wide = _covering(saved)
        direct, dresidual, dweight, dbias = gradients(dy, wide, statistic.eps, ctx.phi)
        dx = None
        if ctx.needs_input_grad[0]:
            sums = [_summed_like(wide.weight * d, middle) for d in (dbias, dweight)]
            ranks = None if ctx.ranks is None else Ranks(*ctx.ranks)
            dx = _through_statistics(direct, sums, saved, pooled, statistic, ranks, mask)
        through = dy if ctx.phi == "identity" else dresidual
        weight, bias = saved.weight, saved.bias
        return (
            dx,
            through if ctx.needs_input_grad[1] else None,
            None if weight is None else _summed_like(dweight, weight).to(weight.dtype),
            None if bias is None else _summed_like(dbias, bias).to(bias.dtype),
            *[None] * 8,
        )


def _covering(saved: Saved) -> Any:
    """γ and β on every axis of the statistics too: the sums for these are parts of their gradients.

    In the type of the values at work, which sums need.
    """
    mean, weight, bias = saved.mean, saved.weight, saved.bias
    shape = torch.broadcast_shapes(*(p.shape for p in (mean, weight, bias) if p is not None))
    gain = torch.ones_like(mean) if weight is None else weight
    shift = torch.zeros_like(mean) if bias is None else bias
    weight, bias = (
        p.to(formula.working(saved.x)).expand(shape).contiguous() for p in (gain, shift)
    )
    return saved._replace(weight=weight, bias=bias)


def _summed_like(gradient: Tensor, other: Tensor) -> Tensor:
    return gradient.sum_to_size(other.shape)


def _of_all(parts: Sequence[Tensor], ranks: Ranks | None) -> list[Tensor]:
    """The sums of `parts`, of one shape and type, over all ranks: one collective."""
    if ranks is None:
        return [*parts]
    whole = reduce(torch.stack([*parts]), ranks)
    return list(whole.unbind(0))


def _through_statistics(
    direct: Tensor,
    sums: list[Tensor],
    saved: Saved,
    pooled: MergedStatistics,
    statistic: Statistic,
    ranks: Ranks | None,
    mask: Tensor | None,
) -> Tensor:
    """The gradient of x; `direct` is its part for constant statistics.

    `sums`: those of g and of g · (x − μ)/σ over this rank's values, where g is the gradient of the
    latter.
    """
    if statistic.p == 2 and statistic.about_mean and statistic.center:
        return _through_deviation(direct, _of_all(sums, ranks), saved, pooled, statistic)
    d = formula.widen(saved.x)
    d = blank(formula.deviations(d, pooled.mean), mask) if statistic.about_mean else d
    slope, number = _slope(d, saved.square, pooled.square, statistic)
    own = (*sums, slope.sum(statistic.dims, keepdim=True), number)
    plain, unit, slopes, number = _of_all([part.to(d.dtype) for part in own], ranks)
    inverse = torch.rsqrt(saved.square + statistic.eps)
    shared = number.clamp(min=1) if math.isinf(statistic.p) else pooled.number
    ds = -unit * inverse.square() / shared
    constant = plain * inverse if statistic.center else torch.zeros_like(inverse)
    constant = constant + ds * slopes if statistic.about_mean else constant
    dx = direct + (ds.to(d.dtype) * slope - (constant / pooled.number).to(d.dtype))
    return dx.to(saved.x.dtype)


def _slope(
    d: Tensor, square: Tensor, measured: Tensor, statistic: Statistic
) -> tuple[Tensor, Tensor]:
    """The derivative s · ∂s/∂d, to be divided by the number of values, and how many share it here.

    For p = ∞ these are the values as large as the largest of all ranks, whose square is `measured`.
    """
    one = torch.ones_like(square)
    if not math.isinf(statistic.p):
        return formula.scale_gradient(one, d, square, statistic, count=1), one
    largest = measured.sqrt().to(d.dtype)  # the root of a square is exact
    slope = formula.scale_gradient(one, d, square, statistic, largest, 1)
    return slope, (d.abs() == largest).sum(statistic.dims, keepdim=True)


def _through_deviation(
    direct: Tensor, sums: list[Tensor], saved: Saved, pooled: MergedStatistics, statistic: Statistic
) -> Tensor:
    """For the standard deviation: linear in (x − μ)/σ, so normalization does it in one pass."""
    plain, unit = sums
    share = -torch.rsqrt(saved.square + statistic.eps) / pooled.number
    slope = (share * unit * statistic.factor**2).to(plain.dtype)
    affine = Affine(slope, (share * plain).to(plain.dtype))
    return normalize(saved.x, saved.mean, saved.square, affine, statistic.eps, Epilogue(direct))


def covariance(
    x: Tensor, ranks: Ranks | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number (G or 1, 1, 1) of vectors, their mean (G, C, 1) and covariance (G, C, C).

    Of x (G, C, M) on all ranks, by `mask` (G, 1, M) as in :func:`pool`.  Differentiable once, to
    the values of every rank.
    """
    number, mean, spread = _Covariance.apply(x, mask, None if ranks is None else tuple(ranks))
    return number, mean, spread


class _Covariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor | None, ranks: Any) -> Any:
        ctx.ranks = None if ranks is None else Ranks(*ranks)
        number, mean, spread = _own_covariance(x, mask)
        if ctx.ranks is not None:
            number, shares, (means, spreads) = _told(number, (mean, spread), ctx.ranks)
            mean = (shares * means).sum(0)
            away = means - mean
            spread = (shares * (spreads + away @ away.mT)).sum(0)
        ctx.save_for_backward(x, mean, number)
        ctx.mark_non_differentiable(number)
        return number, mean.to(x.dtype), spread.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Any, dmean: Tensor, dspread: Tensor) -> Any:
        x, mean, number = ctx.saved_tensors
        if ctx.ranks is not None:
            together = torch.cat([dmean, dspread], -1)
            dmean, dspread = reduce(together.contiguous(), ctx.ranks).split(
                [1, dspread.shape[-1]], -1
            )
        d = formula.deviations(x, mean)
        dx = (dmean + (dspread + dspread.mT) @ d) / number.clamp(min=1).to(x.dtype)
        return dx, None, None


def _own_covariance(x: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
    """This rank's number, mean and covariance; zeros where it has no values."""
    if mask is None:
        mean, spread = whitening.moments(x)
        number = mean.new_full((1, 1, 1), x.shape[-1])
    else:
        number = counted(mask, mask.shape, [2])
        some = number.clamp(min=1)
        mean = x.sum(-1, keepdim=True) / some
        away = blank(x - mean, mask)
        spread = away @ away.mT / some
    found = [part.to(formula.accurate(x)) for part in (number, mean, spread)]
    return tuple(found if x.numel() else map(torch.zeros_like, found))
