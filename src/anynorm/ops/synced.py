"""Statistics of the values of all ranks, and the derivative through them.

Every rank tells the others its count, mean and spread in one collective (two where the deviations
must be taken from the mean of all, which is so for every scale about the mean but the standard
deviation), merges what it was told in the order of ranks, and normalizes by
:mod:`anynorm.ops.normalize`.  Backward takes one collective.  The gradients of γ and β are those of
a rank's own values: DDP averages them, as it does those of the other parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from anynorm.ops import formula, own, whitening
from anynorm.ops.normalize import gradients, keeping, normalize
from anynorm.ops.ranks import Ranks, gather, reduce
from anynorm.ops.standardize import standardize
from anynorm.ops.values import Affine, After, Saved, Statistic

__all__ = ["Pool", "covariance", "normalized", "pool"]


class Pool(NamedTuple):
    """The statistics of all ranks' values: their number, their mean, and s² for C = 1.

    μ and s² keep the reduced axes at size 1.
    """

    number: Tensor
    mean: Tensor
    square: Tensor


@torch.no_grad()
def pool(x: Tensor, statistic: Statistic, ranks: Ranks) -> Pool:
    """Return the statistics of `x`, of any shape, on all ranks; a rank may have no values.

    Chan, Golub & LeVeque 1983, of several parts at once.
    """
    x = x.detach()
    if not statistic.about_mean or statistic.p == 2:
        return _exchange(x, statistic, ranks)
    count, mean, _ = _exchange(x, statistic._replace(p=2.0), ranks)
    away = formula.deviations(formula.widen(x), mean)
    return Pool(count, mean, _exchange(away, statistic._replace(about_mean=False), ranks).square)


def _exchange(x: Tensor, statistic: Statistic, ranks: Ranks) -> Pool:
    """One collective."""
    mean, square = _of_own(x, statistic._replace(center=True, factor=1.0))
    number = x.numel() // max(mean.numel(), 1)
    count, shares, (means, squares) = _told(number, (mean, square), ranks)
    middle = (shares * means).sum(0)
    if statistic.about_mean:
        squares = squares + (means - middle).square()
    return Pool(count, middle, _averaged(shares, squares, statistic.p))


def _of_own(x: Tensor, statistic: Statistic) -> tuple[Tensor, Tensor]:
    """The moments of this rank's values; any finite ones where it has none."""
    if x.numel() == 0:
        shape = [1 if axis in statistic.dims else size for axis, size in enumerate(x.shape)]
        nothing = x.new_zeros(shape, dtype=formula.accurate(x))
        return nothing, nothing
    if own.AVAILABLE and x.is_cpu:  # one pass over x and a copy, where the formula takes many
        return standardize(x, Affine(), statistic)[1:]
    return formula.moments(x, statistic)


def _told(
    number: int, parts: Sequence[Tensor], ranks: Ranks
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The count of all, each rank's share in it, and its `parts`, with the ranks as first axis."""
    head = parts[0].new_full((1,), number)
    rows = gather(torch.cat([head, *(part.reshape(-1) for part in parts)]), ranks)
    counts, *others = rows.split([1, *(part.numel() for part in parts)], 1)
    total = counts.sum()
    shares = (counts / total).reshape(-1, *[1] * parts[0].dim())
    pairs = zip(others, parts, strict=True)
    return total, shares, [rows.reshape(-1, *part.shape) for rows, part in pairs]


def _averaged(shares: Tensor, squares: Tensor, p: float) -> Tensor:
    if math.isinf(p):  # a rank without values says zero
        return squares.amax(0)
    if p == 2:
        return (shares * squares).sum(0)
    return (shares * squares.pow(p / 2)).sum(0).pow(2 / p)


def normalized(
    x: Tensor,
    affine: Affine,
    pooled: Pool,
    statistic: Statistic,
    after: After,
    ranks: Ranks,
    factor: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h = φ(γ · (x − μ) / σ + β + residual), μ and s² by the statistics of all ranks.

    Shapes as for :func:`anynorm.ops.standardize`; `factor` is the constant C for their count, in
    place of that in `statistic`.  Only h is differentiable, and once; its derivative goes through
    the statistics to the values of every rank.
    """
    scale = torch.as_tensor(factor, dtype=pooled.mean.dtype, device=x.device)
    y, mean, square = _Normalized.apply(
        x, after.residual, *affine, *pooled, scale, tuple(statistic), after.phi, tuple(ranks)
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
        statistic: Any,
        phi: str,
        ranks: Any,
    ) -> Any:
        _, center, *_, eps = statistic
        mean = middle if center else torch.zeros_like(middle)
        square = measured * factor.square()
        after = After(residual, phi)
        y, kept = keeping(x, mean, square, Affine(weight, bias), eps, after)
        read = residual if formula.needs_residual(after) else None
        saved = Saved(x, read, kept, mean, square, weight, bias)
        ctx.save_for_backward(*saved, count, middle, measured, factor)
        ctx.statistic, ctx.phi, ctx.ranks = statistic, phi, ranks
        ctx.mark_non_differentiable(mean, square)
        return y, mean, square

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Any:
        *tensors, count, middle, measured, factor = ctx.saved_tensors
        saved, pooled = Saved(*tensors), Pool(count, middle, measured)
        statistic = Statistic(*ctx.statistic)._replace(factor=factor)
        wide = _covering(saved)
        direct, dresidual, dweight, dbias = gradients(dy, wide, statistic.eps, ctx.phi)
        dx = None
        if ctx.needs_input_grad[0]:
            sums = [_summed_like(wide.weight * d, middle) for d in (dbias, dweight)]
            dx = _through_statistics(direct, sums, saved, pooled, statistic, Ranks(*ctx.ranks))
        through = dy if ctx.phi == "identity" else dresidual
        weight, bias = saved.weight, saved.bias
        return (
            dx,
            through if ctx.needs_input_grad[1] else None,
            None if weight is None else _summed_like(dweight, weight).to(weight.dtype),
            None if bias is None else _summed_like(dbias, bias).to(bias.dtype),
            *[None] * 7,
        )


def _covering(saved: Saved) -> Any:
    """γ and β on every axis of the statistics too: the sums for these are parts of their gradients.

    In the type of the values at work, which sums need.
    """
    mean, weight, bias = saved.mean, saved.weight, saved.bias
    shape = torch.broadcast_shapes(*(p.shape for p in (mean, weight, bias) if p is not None))
    gain = torch.ones_like(mean) if weight is None else weight
    shift = torch.zeros_like(mean) if bias is None else bias
    weight, bias = (p.to(_type(saved.x)).expand(shape).contiguous() for p in (gain, shift))
    return saved._replace(weight=weight, bias=bias)


def _type(x: Tensor) -> torch.dtype:
    """That of the values at work."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _summed_like(gradient: Tensor, other: Tensor) -> Tensor:
    return gradient.sum_to_size(other.shape)


def _of_all(parts: Sequence[Tensor], ranks: Ranks) -> list[Tensor]:
    """The sums of `parts`, of one shape and type, over all ranks: one collective."""
    whole = reduce(torch.stack([*parts]), ranks)
    return list(whole.unbind(0))


def _through_statistics(
    direct: Tensor,
    sums: list[Tensor],
    saved: Saved,
    pooled: Pool,
    statistic: Statistic,
    ranks: Ranks,
) -> Tensor:
    """The gradient of x; `direct` is its part for constant statistics.

    `sums`: those of g and of g · (x − μ)/σ over this rank's values, where g is the gradient of the
    latter.
    """
    if statistic.p == 2 and statistic.about_mean and statistic.center:
        return _through_deviation(direct, _of_all(sums, ranks), saved, pooled, statistic)
    d = formula.widen(saved.x)
    d = formula.deviations(d, pooled.mean) if statistic.about_mean else d
    slope, number = _slope(d, saved.square, pooled.square, statistic)
    own = (*sums, slope.sum(statistic.dims, keepdim=True), number)
    plain, unit, slopes, number = _of_all([part.to(d.dtype) for part in own], ranks)
    inverse = torch.rsqrt(saved.square + statistic.eps)
    ds = -unit * inverse.square() / (number if math.isinf(statistic.p) else pooled.number)
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
    direct: Tensor, sums: list[Tensor], saved: Saved, pooled: Pool, statistic: Statistic
) -> Tensor:
    """For the standard deviation: linear in (x − μ)/σ, so normalization does it in one pass."""
    plain, unit = sums
    share = -torch.rsqrt(saved.square + statistic.eps) / pooled.number
    slope = (share * unit * statistic.factor**2).to(plain.dtype)
    affine = Affine(slope, (share * plain).to(plain.dtype))
    return normalize(saved.x, saved.mean, saved.square, affine, statistic.eps, After(direct))


def covariance(x: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Return the mean (G, C, 1) and the covariance (G, C, C) of x (G, C, M) on all ranks.

    Differentiable once, to the values of every rank.
    """
    mean, spread = _Covariance.apply(x, tuple(ranks))
    return mean, spread


class _Covariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Any) -> Any:
        ctx.ranks = ranks
        own_mean, own_spread = whitening.moments(x)
        parts = [part.to(formula.accurate(x)) for part in (own_mean, own_spread)]
        if x.numel() == 0:
            parts = [torch.zeros_like(part) for part in parts]
        count, shares, (means, spreads) = _told(x.shape[-1], parts, Ranks(*ranks))
        mean = (shares * means).sum(0)
        away = means - mean
        spread = (shares * (spreads + away @ away.mT)).sum(0)
        ctx.save_for_backward(x, mean, count)
        return mean.to(x.dtype), spread.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dmean: Tensor, dspread: Tensor) -> Any:
        x, mean, count = ctx.saved_tensors
        together = torch.cat([dmean, dspread], -1)
        dmean, dspread = reduce(together.contiguous(), Ranks(*ctx.ranks)).split(
            [1, dspread.shape[-1]], -1
        )
        d = formula.deviations(x, mean)
        return (dmean + (dspread + dspread.mT) @ d) / count.to(x.dtype), None
