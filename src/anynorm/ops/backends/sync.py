"""Normalization by the statistics of the values that count, of one process or of several."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anynorm.ops import merged_statistics
from anynorm.ops.call import NormCall
from anynorm.ops.checks import need_counted, single_value
from anynorm.ops.merged_statistics import MergedStatistics
from anynorm.ops.running import plain_eager
from anynorm.ops.types import Statistic
from anynorm.spec import Scale

__all__ = ["check_number", "standardize"]


def standardize(
    x: Tensor, statistic: Statistic, call: NormCall
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h, μ, s² and the number of values.

    Of the split view `x`, in which γ, β, the residual and the mask of `call` are as well; `x` is 0
    where the mask is False.
    """
    ranks, mask = call.ranks, call.mask
    found = merged_statistics.pool(x, statistic, ranks, mask)
    if call.plan.takes_batch:
        check_number(x, found.number, mask)
    used = found if mask is None else _safe(found)
    factor = _factor(call.spec.scale, used.number)
    h = merged_statistics.normalized(
        x, call.affine, used, statistic, call.epilogue, factor, ranks, mask
    )
    return *h, found.number


def check_number(x: Tensor, number: Tensor, mask: Tensor | None) -> None:
    """Raise for a deviation over one value, where the number can be read without waiting."""
    if mask is not None:
        if plain_eager(x.detach()) and x.numel() and number.max().item() <= 1:
            need_counted(x, mask)
    elif x.is_cpu and not torch.compiler.is_compiling() and number.item() == 1:
        single_value(x, "the batches of all ranks")


def _safe(pool: MergedStatistics) -> MergedStatistics:
    """The same with numbers to divide by where no value counts."""
    none = pool.number == 0
    return MergedStatistics(pool.number.clamp(min=1), pool.mean, pool.square.masked_fill(none, 1.0))


def _factor(scale: Scale | None, count: Tensor) -> float | Tensor:
    """What :meth:`Scale.factor` is for a count that is only known on the device."""
    if scale is None:
        return 0.0
    if scale.constant == "sum":
        return count ** (1.0 / scale.p)
    if scale.constant == "gaussian" and math.isinf(scale.p):
        return torch.where(count > 1, torch.rsqrt(2.0 * torch.log(count.clamp(min=2))), 1.0)
    return scale.factor(2.0)
