"""Kernels of the backward pass, which recompute intermediate values from x.

`whole` keeps all values of a set in registers.  For larger sets, `reduce` writes partial sums of
each set, `conclude` adds them in a fixed order, and `apply` computes dx from the sums.  `whole` and
`apply` also write partial gradients of γ and β in rows; the gradient is the sum of the rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.derivative import pull, slope, standard, through_phi
from anynorm.kernels.triton.epilogue import added, leave_part, times, zeros_like
from anynorm.kernels.triton.index import cover, extents, length, line, of_set, store
from anynorm.kernels.triton.split_reduce import alone, leave, share, total
from anynorm.kernels.triton.statistics import STAGES, given, inverse_of, over

__all__ = ["apply", "conclude", "reduce", "whole"]

# The compiler does not merge two loads of the same values if their eviction policies differ.
FIRST = tl.constexpr("evict_last")
AGAIN = tl.constexpr("evict_first")


@triton.jit
def _keep(dresidual, at, inside, g):
    if dresidual is not None:
        store(dresidual, at, inside, g)


@triton.jit
def whole(
    dy,
    x,
    residual,
    sign_mask,
    mean,
    square,
    weight,
    bias,
    dx,
    dresidual,
    dweight,
    dbias,
    sizes,
    columns,
    numel,
    factor,
    eps,
    CENTER: tl.constexpr,
    ABOUT: tl.constexpr,
    POWER: tl.constexpr,
    PHI: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Process sets that fit in one tile; each program processes every `columns`-th tile of B."""
    A, B, C = extents(sizes)
    first = tl.program_id(0) % columns
    p = (tl.program_id(0) // columns).to(tl.int64)
    a, inside_a = line(0, A, BA, WIDE)
    c, inside_c = line(0, C, BC, WIDE)
    count = length(A, C)
    of_weight, of_bias = zeros_like(dweight, BA, BB, BC), zeros_like(dbias, BA, BB, BC)
    for block in range(first, tl.cdiv(B, BB), columns):
        b, inside_b = line(block * BB, B, BB, WIDE)
        at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
        high, low, s = given(mean, square, at, inside)
        inverse = inverse_of(s, eps)
        values, d, unit = standard(x, (high, low, inverse), at, inside, FIRST)
        g = through_phi(dy, residual, sign_mask, weight, bias, unit, at, inside, PHI, FIRST)
        g = times(g, weight, at, inside, FIRST)
        along, number = slope(d if ABOUT else values, cover(inside), POWER)
        factor_of_set = pull(over(g * unit) / count, inverse, s, factor, count / number, POWER)
        plain, level = over(g) / count, over(along) / count
        # Load again, from the nearest cache: fewer registers are in use, so more programs fit.
        values, d, unit = standard(x, (high, low, inverse), at, inside, AGAIN)
        g = through_phi(dy, residual, sign_mask, weight, bias, unit, at, inside, PHI, AGAIN)
        _keep(dresidual, at, inside, g)
        of_weight = added(of_weight, g * unit, dweight)
        of_bias = added(of_bias, g, dbias)
        g = times(g, weight, at, inside)
        along, _ = slope(d if ABOUT else values, cover(inside), POWER)
        if CENTER:
            g = g - plain
        if CENTER and ABOUT and POWER != "square":
            along = along - level
        store(dx, at, inside, along * factor_of_set + g * inverse)
    b, inside_b = line(first * BB, B, BB, WIDE)
    at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
    leave_part(dweight, numel, at, inside, (0, 1, first, columns), of_weight)
    leave_part(dbias, numel, at, inside, (0, 1, first, columns), of_bias)


@triton.jit
def reduce(
    dy,
    x,
    residual,
    sign_mask,
    mean,
    square,
    weight,
    bias,
    left,
    sizes,
    splits,
    sets,
    eps,
    INSIDE: tl.constexpr,
    POWER: tl.constexpr,
    PHI: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write the sums of g, of g · (x − μ)/σ and (p = 1) of the slope, for each split of A and set.

    g includes γ if γ varies `INSIDE` a set.
    """
    A, B, C = extents(sizes)
    part, p, b, inside_b, first, last = share(A, B, splits, BA, BB, WIDE)
    set_at, set_inside = of_set(p, b, inside_b, WIDE)
    high, low, s = given(mean, square, set_at, set_inside)
    inverse = inverse_of(s, eps)
    plain, pulled = tl.zeros((BA, BB, BC), tl.float32), tl.zeros((BA, BB, BC), tl.float32)
    slopes = tl.zeros((BA, BB, BC), tl.float32)
    for start in range(0, C, BC):
        c, inside_c = line(start, C, BC, WIDE)
        for row in tl.range(first, last, BA, num_stages=STAGES):
            a, inside_a = line(row, last, BA, WIDE)
            at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
            _, d, unit = standard(x, (high, low, inverse), at, inside)
            g = through_phi(dy, residual, sign_mask, weight, bias, unit, at, inside, PHI)
            if INSIDE:
                g = times(g, weight, at, inside)
            plain += g
            pulled += g * unit
            if POWER == "absolute":
                slopes += slope(d, cover(inside), POWER)[0]
    index = p * B + b
    leave(left, part, sets, index, inside_b, over(plain))
    leave(left, part + splits, sets, index, inside_b, over(pulled))
    if POWER == "absolute":
        leave(left, part + 2 * splits, sets, index, inside_b, over(slopes))


@triton.jit
def conclude(left, sums, splits, sets, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """Add the partial sums of one field into `sums`; each field has its own row of programs."""
    blocks = tl.cdiv(sets, BLOCK)
    field = tl.program_id(0) // blocks
    index, inside = line(tl.program_id(0) % blocks * BLOCK, sets, BLOCK, False)
    found = total(left, field, splits, sets, index, inside, SPLITS)
    leave(sums, field.to(tl.int64), sets, index, inside, found)


@triton.jit
def apply(
    dy,
    x,
    residual,
    sign_mask,
    mean,
    square,
    weight,
    bias,
    dx,
    dresidual,
    dweight,
    dbias,
    sums,
    sizes,
    sets,
    columns,
    numel,
    factor,
    eps,
    CENTER: tl.constexpr,
    ABOUT: tl.constexpr,
    INSIDE: tl.constexpr,
    POWER: tl.constexpr,
    PHI: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write the gradients, from the sums over sets; without sums, μ and σ are constants.

    Tiles are processed in reverse order, since those read last are most likely still in the cache.
    """
    A, B, C = extents(sizes)
    OWN: tl.constexpr = INSIDE or sums is None  # otherwise the sums are the gradients of γ and β
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    rows = tl.cdiv(A, BA)
    block_a, first = program % rows, program // rows % columns
    p = (program // rows // columns).to(tl.int64)
    a, inside_a = line(block_a * BA, A, BA, WIDE)
    count = length(A, C)
    of_weight, of_bias = zeros_like(dweight, BA, BB, BC), zeros_like(dbias, BA, BB, BC)
    for block in range(first, tl.cdiv(B, BB), columns):
        b, inside_b = line(block * BB, B, BB, WIDE)
        set_at, set_inside = of_set(p, b, inside_b, WIDE)
        high, low, s = given(mean, square, set_at, set_inside)
        inverse = inverse_of(s, eps)
        if sums is not None:
            plain, pulled, level = _sums(sums, sets, p * B + b, inside_b, POWER)
            if not OWN:
                of_weight, of_bias = added(of_weight, pulled, dweight), added(of_bias, plain, dbias)
                plain = times(plain, weight, set_at, set_inside)
                pulled = times(pulled, weight, set_at, set_inside)
            factor_of_set = pull(pulled / count, inverse, s, factor, 1.0, POWER)
            constant = alone((plain * inverse + level * factor_of_set) * (-CENTER / count))
            factor_of_set = alone(factor_of_set)
        high, low, inverse = alone(high), alone(low), alone(inverse)
        for start in range(0, C, BC):
            c, inside_c = line(start, C, BC, WIDE)
            at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
            values, d, unit = standard(x, (high, low, inverse), at, inside)
            g = through_phi(dy, residual, sign_mask, weight, bias, unit, at, inside, PHI)
            _keep(dresidual, at, inside, g)
            if OWN:
                of_weight = added(of_weight, g * unit, dweight)
                of_bias = added(of_bias, g, dbias)
            out = times(g, weight, at, inside) * inverse
            if sums is not None:
                along, _ = slope(d if ABOUT else values, cover(inside), POWER)
                out += along * factor_of_set + constant
            store(dx, at, inside, out)
    b, inside_b = line(first * BB, B, BB, WIDE)
    c, inside_c = line(0, C, BC, WIDE)
    at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
    if OWN or block_a == 0:
        part = (block_a, rows if OWN else 1, first, columns)
        leave_part(dweight, numel, at, inside, part, of_weight)
        leave_part(dbias, numel, at, inside, part, of_bias)


@triton.jit
def _sums(sums, sets, index, inside, POWER: tl.constexpr):
    """Return what :func:`conclude` wrote; the sum of deviations is zero."""
    plain = tl.load(sums + index, mask=inside, other=0)[None, :, None]
    pulled = tl.load(sums + sets + index, mask=inside, other=0)[None, :, None]
    level = tl.zeros_like(plain)
    if POWER == "absolute":
        level = tl.load(sums + 2 * sets + index, mask=inside, other=0)[None, :, None]
    return plain, pulled, level
