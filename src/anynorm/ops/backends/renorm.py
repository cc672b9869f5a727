"""Batch renorm: running statistics correct those of the batch in training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from anynorm.ops import formula, merged_statistics
from anynorm.ops.call import NormCall
from anynorm.ops.types import Affine, Statistic
from anynorm.spec import Renorm

__all__ = ["corrected"]


def corrected(x: Tensor, statistic: Statistic, call: NormCall, lies: Sequence[int]) -> Affine:
    """Return γ · r and β + γ · d: applied to the batch's own ẑ they give γ · (r · ẑ + d) + β.

    r and d have no gradient.  All tensors of the call are those of the split view `x`, in which
    running statistics have the shape `lies`.
    """
    (weight, bias), running, limits = call.affine, call.running, call.spec.source
    assert running is not None
    assert isinstance(limits, Renorm)
    _, mean, square = merged_statistics.pool(x, statistic, call.ranks, call.mask)
    kept_mean, kept_var = (t.detach().reshape(lies).to(mean.dtype) for t in running[:2])
    inverse = (kept_var + call.eps).rsqrt()
    r = ((square + call.eps).sqrt() * inverse).clamp(1 / limits.r_max, limits.r_max)
    d = ((mean - kept_mean) * inverse).clamp(-limits.d_max, limits.d_max)
    gain, shift = (t.to(formula.working(x)) for t in (r, d))
    if weight is not None:
        gain, shift = weight * gain, weight * shift
    return Affine(gain, shift if bias is None else shift + bias)
