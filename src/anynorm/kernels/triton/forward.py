"""Kernels of the forward: h = φ(γ · (x − μ) / σ + β + residual).

`whole` has all values of a set in registers: one read, one write.  Where a set is too large for
that, or sets too few to fill the device, `moments` leaves parts of the statistics, which
`normalize` merges in a fixed order.  There is nothing that depends on which program comes first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.affine import plus, times
from anynorm.kernels.triton.index import cover, extents, line, load, load_whole, offset, pack, store
from anynorm.kernels.triton.parts import leave, merged, share, sum_of_splits
from anynorm.kernels.triton.phi import activate
from anynorm.kernels.triton.statistics import (
    STAGES,
    centred,
    given,
    inverse_of,
    measured,
    over,
    welford,
)

__all__ = ["conclude", "moments", "normalize", "spread", "whole"]


@triton.jit
def finish(
    unit, residual, weight, bias, y, kept, at, inside, PHI: tl.constexpr, AXIS: tl.constexpr
):
    """Do what follows the unit values; `AXIS` is the one that bits lie along."""
    z = plus(times(unit, weight, at, inside), bias, at, inside)
    z = plus(z, residual, at, inside)
    if kept is not None:
        _store_bits(kept, (z <= 0) == 0, at, inside, AXIS)
    store(y, at, inside, activate(z, PHI))


@triton.jit
def _store_bits(kept, bits, at, inside, AXIS: tl.constexpr):
    p, a, b, c = at
    ia, ib, ic = inside
    if AXIS == 0:
        a, ia = _every_eighth(a, ia)
    elif AXIS == 1:
        b, ib = _every_eighth(b, ib)
    else:
        c, ic = _every_eighth(c, ic)
    byte = pack(bits, AXIS)
    place = offset(kept, (p, a, b, c)) >> 3
    tl.store(kept.data + place, byte, mask=cover((ia, ib, ic)))


@triton.jit
def _every_eighth(place, inside):
    first = tl.min(place, 0) + 8 * tl.arange(0, place.shape[0] // 8)
    last = tl.max(tl.where(inside, place, -1), 0)
    return first, first <= last


@triton.jit
def whole(
    x,
    residual,
    weight,
    bias,
    y,
    mean,
    square,
    kept,
    sizes,
    factor,
    eps,
    CENTER: tl.constexpr,
    ABOUT: tl.constexpr,
    POWER: tl.constexpr,
    PHI: tl.constexpr,
    AXIS: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Sets whose values all lie in one tile; a program has some of B at one place of P."""
    A, B, C = extents(sizes)
    blocks = tl.cdiv(B, BB)
    p = (tl.program_id(0) // blocks).to(tl.int64)
    a, inside_a = line(0, A, BA, WIDE)
    b, inside_b = line(tl.program_id(0) % blocks * BB, B, BB, WIDE)
    c, inside_c = line(0, C, BC, WIDE)
    at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
    values = load_whole(x, at, inside)
    count = (A * C).to(tl.float32)
    if CENTER:
        high, low, d = centred(values, cover(inside), count)
    else:
        high = tl.zeros((1, BB, 1), tl.float32)
        low, d = high, values
    s = measured(d if ABOUT else values, count, POWER) * factor * factor
    store(mean, at, inside, high.to(tl.float64) + low)
    store(square, at, inside, s)
    finish(d * inverse_of(s, eps), residual, weight, bias, y, kept, at, inside, PHI, AXIS)


@triton.jit
def moments(
    x,
    partial,
    sizes,
    splits,
    sets,
    SHIFT: tl.constexpr,
    TAILS: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Leave number, mean and spread of x for each split of A and each set."""
    A, B, C = extents(sizes)
    part, p, b, inside_b, first, last = share(A, B, splits, BA, BB, WIDE)
    shift = _shift(x, p, b, inside_b, SHIFT)
    found = welford(x, shift, (p, b), inside_b, first, last, C, TAILS, BA, BC, WIDE)
    where = partial + part * sets + p * B + b
    for field in tl.static_range(3):
        leave(where + field * splits * sets, found[field], inside_b)


@triton.jit
def _shift(x, p, b, inside_b, SHIFT: tl.constexpr):
    """Return the first value of each set, so that digits are spent on what differs."""
    if SHIFT:
        none, there = line(0, 1, 1, False)
        return load(x, (p, none, b, none), (there, inside_b, there))
    else:
        return tl.zeros((1, b.shape[0], 1), tl.float32)


@triton.jit
def _statistics(
    x,
    partial,
    magnitudes,
    p,
    b,
    inside_b,
    sizes,
    splits,
    sets,
    CENTER: tl.constexpr,
    ABOUT: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Return the parts of μ, and s² for C = 1, from what was left."""
    A, B, C = extents(sizes)
    index = p * B + b
    low, s = merged(partial, index, inside_b, splits, sets, SPLITS)
    high = _shift(x, p, b, inside_b, CENTER)
    if not ABOUT:
        s = s + (high + low) * (high + low)
    if not CENTER:
        low = tl.zeros_like(low)
    if magnitudes is not None:
        sums = sum_of_splits(magnitudes, index, inside_b, splits, sets, SPLITS) / (A * C)
        s = sums * sums
    return high, low, s


@triton.jit
def conclude(
    x,
    mean,
    square,
    partial,
    magnitudes,
    sizes,
    splits,
    sets,
    factor,
    CENTER: tl.constexpr,
    ABOUT: tl.constexpr,
    SPLITS: tl.constexpr,
    BB: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write μ and s² from what was left."""
    _, B, _ = extents(sizes)
    blocks = tl.cdiv(B, BB)
    p = (tl.program_id(0) // blocks).to(tl.int64)
    b, inside_b = line(tl.program_id(0) % blocks * BB, B, BB, WIDE)
    none, there = line(0, 1, 1, WIDE)
    high, low, s = _statistics(
        x, partial, magnitudes, p, b, inside_b, sizes, splits, sets, CENTER, ABOUT, SPLITS
    )
    at, inside = (p, none, b, none), (there, inside_b, there)
    store(mean, at, inside, high.to(tl.float64) + low)
    store(square, at, inside, s * factor * factor)


@triton.jit
def spread(
    x,
    partial,
    magnitudes,
    sizes,
    splits,
    sets,
    CENTER: tl.constexpr,
    ABOUT: tl.constexpr,
    SPLITS: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Leave the sum of |x − μ| for each split and set, for p = 1."""
    A, B, C = extents(sizes)
    part, p, b, inside_b, first, last = share(A, B, splits, BA, BB, WIDE)
    high, low, _ = _statistics(
        x, partial, None, p, b, inside_b, sizes, splits, sets, CENTER, ABOUT, SPLITS
    )
    total = tl.zeros((BA, BB, BC), tl.float32)
    for start in range(0, C, BC):
        c, inside_c = line(start, C, BC, WIDE)
        for row in tl.range(first, last, BA, num_stages=STAGES):
            a, inside_a = line(row, last, BA, WIDE)
            inside = (inside_a, inside_b, inside_c)
            away = load(x, (p, a, b, c), inside) - high - low
            total += tl.where(cover(inside), tl.abs(away), 0.0)
    leave(magnitudes + part * sets + p * B + b, over(total), inside_b)


@triton.jit
def normalize(
    x,
    residual,
    weight,
    bias,
    y,
    mean,
    square,
    kept,
    partial,
    magnitudes,
    sizes,
    splits,
    sets,
    factor,
    eps,
    CENTER: tl.constexpr,
    ABOUT: tl.constexpr,
    PHI: tl.constexpr,
    AXIS: tl.constexpr,
    SPLITS: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Normalize by `mean` and `square`, or by what :func:`moments` left, which is written to them.

    Backwards: what was read last is the likeliest to be in the cache still.
    """
    A, B, C = extents(sizes)
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    rows, blocks = tl.cdiv(A, BA), tl.cdiv(B, BB)
    p = (program // rows // blocks).to(tl.int64)
    a, inside_a = line(program % rows * BA, A, BA, WIDE)
    b, inside_b = line(program // rows % blocks * BB, B, BB, WIDE)
    none, there = line(0, 1, 1, WIDE)
    at, inside = (p, none, b, none), (there, inside_b, there)
    if partial is None:
        high, low, s = given(mean, square, at, inside)
    else:
        high, low, s = _statistics(
            x, partial, magnitudes, p, b, inside_b, sizes, splits, sets, CENTER, ABOUT, SPLITS
        )
        s = s * factor * factor
        if program % rows == 0:
            store(mean, at, inside, high.to(tl.float64) + low)
            store(square, at, inside, s)
    inverse = inverse_of(s, eps)
    for start in range(0, C, BC):
        c, inside_c = line(start, C, BC, WIDE)
        place, mask = (p, a, b, c), (inside_a, inside_b, inside_c)
        unit = (load(x, place, mask) - high - low) * inverse
        finish(unit, residual, weight, bias, y, kept, place, mask, PHI, AXIS)
