"""Functions for kernels: the derivatives of φ and of the statistics."""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.epilogue import plus, times
from anynorm.kernels.triton.index import NO_HINT, cover, load_bits, load_whole
from anynorm.kernels.triton.phi import descend
from anynorm.kernels.triton.statistics import largest, over

__all__ = ["pull", "slope", "standard", "through_phi"]


@triton.jit
def standard(x, statistics, at, inside, KEEP: tl.constexpr = NO_HINT):
    """Return x, x − μ and (x − μ)/σ, the last two with zeros outside."""
    high, low, inverse = statistics
    values = load_whole(x, at, inside, KEEP)
    d = tl.where(cover(inside), values - high - low, 0.0)
    return values, d, d * inverse


@triton.jit
def through_phi(
    dy,
    residual,
    sign_mask,
    weight,
    bias,
    unit,
    at,
    inside,
    PHI: tl.constexpr,
    KEEP: tl.constexpr = NO_HINT,
):
    """Return the gradient with respect to the input of φ."""
    g = load_whole(dy, at, inside, KEEP)
    if PHI == "identity":
        return g
    elif sign_mask is not None:
        z = tl.where(load_bits(sign_mask, at, inside), 1.0, 0.0)  # of the same sign
        return descend(g, z, PHI)
    else:
        z = plus(times(unit, weight, at, inside), bias, at, inside)
        return descend(g, plus(z, residual, at, inside, KEEP), PHI)


@triton.jit
def slope(d, inside, POWER: tl.constexpr):
    """Return s · ∂s/∂d up to a factor per set, and the number of values that share it."""
    one = tl.full((1, d.shape[1], 1), 1.0, tl.float32)
    sign = tl.where(d > 0, 1.0, tl.where(d < 0, -1.0, 0.0))
    if POWER == "square":
        return d, one
    elif POWER == "absolute":
        return sign, one
    else:
        top = (tl.abs(d) == largest(tl.abs(d))) & inside
        return tl.where(top, sign, 0.0), over(top.to(tl.float32))


@triton.jit
def pull(pulled, inverse, square, factor, share, POWER: tl.constexpr):
    """Return the factor of the slope.

    `pulled` is the mean of g · (x − μ)/σ; `share` is the size of a set divided by the number of its
    largest values.
    """
    both = -pulled * inverse * inverse * factor
    if POWER == "square":
        return both * factor
    elif POWER == "absolute":
        return both * tl.sqrt_rn(square)
    else:
        return both * tl.sqrt_rn(square) * share
