"""Functions for kernels: μ and s² of tiles.

No result is a difference of large sums.  A set in one tile is centred first.  Over many tiles each
lane uses Welford 1962, relative to a value of the set; the lanes are merged as parts of one sample
(Chan, Golub & LeVeque 1983).
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.index import cover, line, load, offset

__all__ = ["centred", "given", "inverse_of", "joined", "measured", "over", "split", "welford"]


@triton.jit
def over(values):
    """Return the sum over A and C; both keep size 1."""
    if values.shape[2] > 1:
        values = tl.sum(values, 2, keep_dims=True)
    if values.shape[0] > 1:
        values = tl.sum(values, 0, keep_dims=True)
    return values


@triton.jit
def largest(values):
    """Return the largest over A and C; both keep size 1."""
    if values.shape[2] > 1:
        values = tl.max(values, 2, keep_dims=True)
    if values.shape[0] > 1:
        values = tl.max(values, 0, keep_dims=True)
    return values


@triton.jit
def centred(x, mask, count):
    """Return the mean in two parts, and x − mean; the second part corrects the first's rounding."""
    high = over(x) / count
    away = tl.where(mask, x - high, 0.0)
    low = over(away) / count
    return high, low, tl.where(mask, away - low, 0.0)


@triton.jit
def measured(d, count, POWER: tl.constexpr):
    """Return s² for C = 1; deviations are zero outside the mask."""
    if POWER == "square":
        return over(d * d) / count
    elif POWER == "absolute":
        mean = over(tl.abs(d)) / count
        return mean * mean
    else:  # the maximum ignores NaN
        top = largest(tl.abs(d)) + over(tl.where(d != d, d, 0.0))
        return top * top


@triton.jit
def inverse_of(square, eps):
    """Return 1/σ."""
    return tl.div_rn(tl.full(square.shape, 1.0, tl.float32), tl.sqrt_rn(square + eps))


@triton.jit
def split(mean):
    """Return a float64 mean as its nearest float32 and the remainder."""
    high = mean.to(tl.float32)
    return high, (mean.to(tl.float64) - high.to(tl.float64)).to(tl.float32)


@triton.jit
def given(mean, square, at, inside):
    """Load the statistics: the two parts of μ, and s²."""
    there = inside[1][None, :, None]
    high, low = split(tl.load(mean.data + offset(mean, at), mask=there, other=0))
    s = tl.load(square.data + offset(square, at), mask=there, other=1).to(tl.float32)
    return high, low, s


# The number of tiles loaded ahead while one is processed.
STAGES = tl.constexpr(3)


@triton.jit
def welford(
    x,
    shift,
    at,
    inside_b,
    first,
    last,
    C,
    TAILS: tl.constexpr,
    BA: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return count, mean and squared deviations of x − shift, for a from `first` to `last`.

    Usually a lane has a value at every step, except for the last ones.  But if the loop over A ends
    inside a tile and starts again for the next block of C, some lanes have no value in the middle.
    With `TAILS`, each block of C is therefore computed separately and merged.
    """
    p, b = at
    shape: tl.constexpr = (BA, b.shape[0], BC)
    zeros = tl.zeros(shape, tl.float32)
    number, mean, spread, m, s = zeros, zeros, zeros, zeros, zeros
    step = 0.0
    rows = tl.maximum(last - first - tl.arange(0, BA) + BA - 1, 0) // BA
    for start in range(0, C, BC):
        c, inside_c = line(start, C, BC, WIDE)
        for row in tl.range(first, last, BA, num_stages=STAGES):
            a, inside_a = line(row, last, BA, WIDE)
            inside = (inside_a, inside_b, inside_c)
            step += 1.0
            away = tl.where(cover(inside), load(x, (p, a, b, c), inside) - shift - m, 0.0)
            change = away * (1.0 / step)
            m += change
            s += away * (away - change)
        if TAILS:
            here = tl.where(inside_c[None, None, :], rows[:, None, None], 0).to(tl.float32)
            number, mean, spread = joined(number, mean, spread, here, m, s)
            m, s, step = zeros, zeros, 0.0
    if not TAILS:
        blocks = tl.maximum(C - tl.arange(0, BC) + BC - 1, 0) // BC
        number = (rows[:, None, None] * blocks[None, None, :]).to(tl.float32) + zeros
        mean, spread = m, s
    # Computed from the sizes: a sum over `number` would need another layout.
    total = tl.full((1, b.shape[0], 1), 1.0, tl.float32) * (last - first) * C
    middle = over(number * mean) / tl.maximum(total, 1.0)
    away = mean - middle
    return total, middle, over(spread + number * away * away)


@triton.jit
def joined(number, mean, spread, other, m, s):
    """Return count, mean and squared deviations of two samples merged."""
    share = other / tl.maximum(number + other, 1.0)
    away = m - mean
    return number + other, mean + away * share, spread + s + away * away * number * share
