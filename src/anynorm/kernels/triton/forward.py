"""Kernels of the forward pass: h = φ(γ · (x − μ) / σ + β + residual).

`whole` keeps all values of a set in registers: one read, one write.  If a set is too large for
that, or there are too few sets to fill the device, `moments` writes partial statistics, `conclude`
merges them, and `normalize` uses the result.
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.epilogue import plus, times
from anynorm.kernels.triton.index import (
    cover,
    extents,
    length,
    line,
    load,
    load_whole,
    of_set,
    offset,
    pack,
    store,
)
from anynorm.kernels.triton.phi import activate
from anynorm.kernels.triton.split_reduce import alone, leave, merged, share, total
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
    unit, residual, weight, bias, y, sign_mask, at, inside, PHI: tl.constexpr, AXIS: tl.constexpr
):
    """Apply γ, β, the residual and φ, and write y; bits are packed along `AXIS`."""
    z = plus(times(unit, weight, at, inside), bias, at, inside)
    z = plus(z, residual, at, inside)
    if sign_mask is not None:
        _store_bits(sign_mask, (z <= 0) == 0, at, inside, AXIS)
    store(y, at, inside, activate(z, PHI))


@triton.jit
def _store_bits(sign_mask, bits, at, inside, AXIS: tl.constexpr):
    p, a, b, c = at
    ia, ib, ic = inside
    if AXIS == 0:
        a, ia = _every_eighth(a, ia)
    elif AXIS == 1:
        b, ib = _every_eighth(b, ib)
    else:
        c, ic = _every_eighth(c, ic)
    byte = pack(bits, AXIS)
    place = offset(sign_mask, (p, a, b, c)) >> 3
    tl.store(sign_mask.data + place, byte, mask=cover((ia, ib, ic)))


@triton.jit
def _every_eighth(place, inside):
    eighth: tl.constexpr = place.shape[0] // 8
    first = tl.min(tl.reshape(place, (eighth, 8)), 1)
    return first, tl.max(tl.reshape(inside.to(tl.int32), (eighth, 8)), 1) != 0


@triton.jit
def whole(
    x,
    residual,
    weight,
    bias,
    y,
    mean,
    square,
    sign_mask,
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
    """Process sets that fit in one tile; each program processes one tile of B at one index of P."""
    A, B, C = extents(sizes)
    blocks = tl.cdiv(B, BB)
    p = (tl.program_id(0) // blocks).to(tl.int64)
    a, inside_a = line(0, A, BA, WIDE)
    b, inside_b = line(tl.program_id(0) % blocks * BB, B, BB, WIDE)
    c, inside_c = line(0, C, BC, WIDE)
    at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
    values = load_whole(x, at, inside)
    count = length(A, C)
    if CENTER:
        high, low, d = centred(values, cover(inside), count)
    else:
        high = tl.zeros((1, BB, 1), tl.float32)
        low, d = high, values
    s = measured(d if ABOUT else values, count, POWER) * factor * factor
    store(mean, at, inside, high.to(tl.float64) + low)
    store(square, at, inside, s)
    finish(d * inverse_of(s, eps), residual, weight, bias, y, sign_mask, at, inside, PHI, AXIS)


@triton.jit
def moments(
    x,
    left,
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
    """Write the count, mean and sum of squared deviations of x for each split of A and each set."""
    A, B, C = extents(sizes)
    part, p, b, inside_b, first, last = share(A, B, splits, BA, BB, WIDE)
    at, inside = of_set(p, b, inside_b, WIDE)
    shift = _shift(x, at, inside, SHIFT)
    found = welford(x, shift, (p, b), inside_b, first, last, C, TAILS, BA, BC, WIDE)
    for field in tl.static_range(3):
        leave(left, part + field * splits, sets, p * B + b, inside_b, found[field])


@triton.jit
def _shift(x, at, inside, SHIFT: tl.constexpr):
    """Return the first value of each set; subtracting it first keeps digits for the differences."""
    if SHIFT:
        return load(x, at, inside)
    else:
        return tl.zeros((1, 1, 1), tl.float32)


@triton.jit
def spread(
    x,
    mean,
    square,
    left,
    sizes,
    splits,
    sets,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write the sum of |x − μ| for each split and set, for p = 1."""
    A, B, C = extents(sizes)
    part, p, b, inside_b, first, last = share(A, B, splits, BA, BB, WIDE)
    at, inside = of_set(p, b, inside_b, WIDE)
    high, low, _ = given(mean, square, at, inside)
    high, low = alone(high), alone(low)
    sums = tl.zeros((BA, BB, BC), tl.float32)
    for start in range(0, C, BC):
        c, inside_c = line(start, C, BC, WIDE)
        for row in tl.range(first, last, BA, num_stages=STAGES):
            a, inside_a = line(row, last, BA, WIDE)
            tile = (inside_a, inside_b, inside_c)
            away = load(x, (p, a, b, c), tile) - high - low
            sums += tl.where(cover(tile), tl.abs(away), 0.0)
    leave(left, part, sets, p * B + b, inside_b, over(sums))


@triton.jit
def conclude(
    x,
    mean,
    square,
    left,
    sizes,
    splits,
    sets,
    factor,
    CENTER: tl.constexpr,
    ABOUT: tl.constexpr,
    POWER: tl.constexpr,
    SPLITS: tl.constexpr,
    BB: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write μ and s² from the partial results; for p = 1 only s², from :func:`spread`."""
    A, B, C = extents(sizes)
    blocks = tl.cdiv(B, BB)
    p = (tl.program_id(0) // blocks).to(tl.int64)
    b, inside_b = line(tl.program_id(0) % blocks * BB, B, BB, WIDE)
    at, inside = of_set(p, b, inside_b, WIDE)
    index = p * B + b
    if POWER == "absolute":
        s = total(left, 0, splits, sets, index, inside_b, SPLITS)[None, :, None] / A / C
        store(square, at, inside, s * s * factor * factor)
    else:
        low, s = merged(left, splits, sets, index, inside_b, SPLITS)
        low, s = low[None, :, None], s[None, :, None]
        high = _shift(x, at, inside, CENTER) + tl.zeros((1, BB, 1), tl.float32)
        if not ABOUT:
            s = s + (high + low) * (high + low)
        if not CENTER:
            low = tl.zeros_like(low)
        store(mean, at, inside, high.to(tl.float64) + low)
        store(square, at, inside, s * factor * factor)


@triton.jit
def normalize(
    x,
    residual,
    weight,
    bias,
    y,
    mean,
    square,
    sign_mask,
    sizes,
    eps,
    PHI: tl.constexpr,
    AXIS: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Normalize by `mean` and `square`.

    Tiles are processed in reverse order, since those read last are most likely still in the cache.
    """
    A, B, C = extents(sizes)
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    rows, blocks = tl.cdiv(A, BA), tl.cdiv(B, BB)
    p = (program // rows // blocks).to(tl.int64)
    a, inside_a = line(program % rows * BA, A, BA, WIDE)
    b, inside_b = line(program // rows % blocks * BB, B, BB, WIDE)
    set_at, set_inside = of_set(p, b, inside_b, WIDE)
    high, low, s = given(mean, square, set_at, set_inside)
    high, low, inverse = alone(high), alone(low), alone(inverse_of(s, eps))
    for start in range(0, C, BC):
        c, inside_c = line(start, C, BC, WIDE)
        at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
        unit = (load_whole(x, at, inside) - high - low) * inverse
        finish(unit, residual, weight, bias, y, sign_mask, at, inside, PHI, AXIS)
