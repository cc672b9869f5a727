"""The formula as other people's code writes it: every step an operator of PyTorch's.

Implementations of one normalizer round 16-bit values at different steps.  This module takes the
same steps in the same order as that code, so that the bits are equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anynorm.ops import formula
from anynorm.ops.types import Affine, Epilogue, Statistic
from anynorm.spec import Dialect, Spec

__all__ = ["as_usual", "differs", "standardize", "variance"]


def as_usual(spec: Spec, x: Tensor) -> bool:
    """Whether torch's operators and the kernels may compute the specification for `x`.

    Not in 16 bits, where γ may be of a wider type than torch's operators take.
    """
    alike = spec.source == "batch" and spec.dialect.eps == "inside"
    return alike and x.dtype not in formula.SIXTEEN_BITS


def differs(dialect: Dialect, x: Tensor) -> bool:
    """Whether the dialect asks for other numbers than our operators compute of `x`."""
    rounds = dialect.statistics == "float32" or dialect.cast == "before"
    return dialect.eps != "inside" or (rounds and x.dtype in formula.SIXTEEN_BITS)


def variance(square: Tensor, eps: float, dialect: Dialect) -> Tensor:
    """Return σ² of s²."""
    if dialect.eps == "max":
        return square.clamp_min(eps * eps)
    if dialect.eps == "outside":  # the root has no gradient at 0: there σ is the constant ε
        return (square.clamp_min(torch.finfo(square.dtype).tiny).sqrt() + eps).square()
    return square + eps


def standardize(
    x: Tensor, affine: Affine, statistic: Statistic, dialect: Dialect, epilogue: Epilogue
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h = φ(γ · (x − μ) / σ + β + residual), μ and s², for a σ of squares (p = 2)."""
    _, center, about_mean, _, factor, eps = statistic
    wide = formula.widen(x)
    mean = wide.mean(statistic.dims, keepdim=True) if center or about_mean else None
    away = wide if mean is None else wide - mean
    measured = away if about_mean else wide
    square = measured.pow(2).mean(statistic.dims, keepdim=True) * factor**2
    z = (away if center else wide) * torch.rsqrt(variance(square, eps, dialect))
    z = z.to(x.dtype) if dialect.cast == "before" else z
    z = z if affine.weight is None else affine.weight * z
    z = z if affine.bias is None else z + affine.bias
    mean = mean if mean is not None and center else torch.zeros_like(square)
    return epilogue.apply(z).to(x.dtype), mean, square
