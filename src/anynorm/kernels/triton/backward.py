"""Kernels of the backward, which recompute what they need from x.

`whole` has all values of a set in registers.  Otherwise `reduce` leaves parts of the sums over each
set, which `apply` adds in a fixed order.  Both leave parts of the gradients of γ and β, of which
the rows are to be added.
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.affine import added, leave_part, times, zeros_like
from anynorm.kernels.triton.derivative import pull, slope, standard, through_phi
from anynorm.kernels.triton.index import cover, extents, line, store
from anynorm.kernels.triton.parts import leave, share, sum_of_splits
from anynorm.kernels.triton.statistics import STAGES, given, inverse_of, over

__all__ = ["apply", "reduce", "whole"]

# Two loads of the same values stay two where they differ in this.
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
    kept,
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
    """Sets whose values all lie in one tile; a program has every `columns`-th tile of B."""
    A, B, C = extents(sizes)
    first = tl.program_id(0) % columns
    p = (tl.program_id(0) // columns).to(tl.int64)
    a, inside_a = line(0, A, BA, WIDE)
    c, inside_c = line(0, C, BC, WIDE)
    count = (A * C).to(tl.float32)
    of_weight, of_bias = zeros_like(dweight, BA, BB, BC), zeros_like(dbias, BA, BB, BC)
    for block in range(first, tl.cdiv(B, BB), columns):
        b, inside_b = line(block * BB, B, BB, WIDE)
        at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
        high, low, s = given(mean, square, at, inside)
        inverse = inverse_of(s, eps)
        values, d, unit = standard(x, (high, low, inverse), at, inside, FIRST)
        g = through_phi(dy, residual, kept, weight, bias, unit, at, inside, PHI, FIRST)
        g = times(g, weight, at, inside, FIRST)
        along, number = slope(d if ABOUT else values, cover(inside), POWER)
        factor_of_set = pull(over(g * unit) / count, inverse, s, factor, count / number, POWER)
        plain, level = over(g) / count, over(along) / count
        # Again, from the nearest cache: what is not held meanwhile leaves room for more programs.
        values, d, unit = standard(x, (high, low, inverse), at, inside, AGAIN)
        g = through_phi(dy, residual, kept, weight, bias, unit, at, inside, PHI, AGAIN)
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
    kept,
    mean,
    square,
    weight,
    bias,
    partial,
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
    """Leave the sums of g, of g · (x − μ)/σ and (p = 1) of the slope, for each split of A and set.

    γ is in g where it differs `INSIDE` a set.
    """
    A, B, C = extents(sizes)
    part, p, b, inside_b, first, last = share(A, B, splits, BA, BB, WIDE)
    none, there = line(0, 1, 1, WIDE)
    high, low, s = given(mean, square, (p, none, b, none), (there, inside_b, there))
    inverse = inverse_of(s, eps)
    plain, pulled = tl.zeros((BA, BB, BC), tl.float32), tl.zeros((BA, BB, BC), tl.float32)
    slopes = tl.zeros((BA, BB, BC), tl.float32)
    for start in range(0, C, BC):
        c, inside_c = line(start, C, BC, WIDE)
        for row in tl.range(first, last, BA, num_stages=STAGES):
            a, inside_a = line(row, last, BA, WIDE)
            at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
            _, d, unit = standard(x, (high, low, inverse), at, inside)
            g = through_phi(dy, residual, kept, weight, bias, unit, at, inside, PHI)
            if INSIDE:
                g = times(g, weight, at, inside)
            plain += g
            pulled += g * unit
            if POWER == "absolute":
                slopes += slope(d, cover(inside), POWER)[0]
    where = partial + part * sets + p * B + b
    leave(where, over(plain), inside_b)
    leave(where + splits * sets, over(pulled), inside_b)
    if POWER == "absolute":
        leave(where + 2 * splits * sets, over(slopes), inside_b)


@triton.jit
def apply(
    dy,
    x,
    residual,
    kept,
    mean,
    square,
    weight,
    bias,
    dx,
    dresidual,
    dweight,
    dbias,
    partial,
    sizes,
    splits,
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
    SPLITS: tl.constexpr,
    BA: tl.constexpr,
    BB: tl.constexpr,
    BC: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Return the gradients, by the sums that :func:`reduce` left; without, μ and σ are constants.

    Backwards: what was read last is the likeliest to be in the cache still.
    """
    A, B, C = extents(sizes)
    OWN: tl.constexpr = INSIDE or partial is None  # else the sums are the gradients of γ and β
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    rows = tl.cdiv(A, BA)
    block_a, first = program % rows, program // rows % columns
    p = (program // rows // columns).to(tl.int64)
    a, inside_a = line(block_a * BA, A, BA, WIDE)
    none, there = line(0, 1, 1, WIDE)
    count = (A * C).to(tl.float32)
    of_weight, of_bias = zeros_like(dweight, BA, BB, BC), zeros_like(dbias, BA, BB, BC)
    for block in range(first, tl.cdiv(B, BB), columns):
        b, inside_b = line(block * BB, B, BB, WIDE)
        of_set, one = (p, none, b, none), (there, inside_b, there)
        high, low, s = given(mean, square, of_set, one)
        inverse = inverse_of(s, eps)
        if partial is not None:
            plain, pulled, level = _sums(partial, p * B + b, inside_b, splits, sets, SPLITS, POWER)
            if not OWN:
                of_weight, of_bias = added(of_weight, pulled, dweight), added(of_bias, plain, dbias)
                plain, pulled = (
                    times(plain, weight, of_set, one),
                    times(pulled, weight, of_set, one),
                )
            factor_of_set = pull(pulled / count, inverse, s, factor, 1.0, POWER)
            constant = (plain * inverse + level * factor_of_set) * (-CENTER / count)
        for start in range(0, C, BC):
            c, inside_c = line(start, C, BC, WIDE)
            at, inside = (p, a, b, c), (inside_a, inside_b, inside_c)
            values, d, unit = standard(x, (high, low, inverse), at, inside)
            g = through_phi(dy, residual, kept, weight, bias, unit, at, inside, PHI)
            _keep(dresidual, at, inside, g)
            if OWN:
                of_weight = added(of_weight, g * unit, dweight)
                of_bias = added(of_bias, g, dbias)
            out = times(g, weight, at, inside) * inverse
            if partial is not None:
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
def _sums(partial, index, inside, splits, sets, SPLITS: tl.constexpr, POWER: tl.constexpr):
    """Return what :func:`reduce` left, of all splits; the sum of deviations is zero."""
    field = splits * sets
    plain = sum_of_splits(partial, index, inside, splits, sets, SPLITS)
    pulled = sum_of_splits(partial + field, index, inside, splits, sets, SPLITS)
    level = tl.zeros_like(plain)
    if POWER == "absolute":
        level = sum_of_splits(partial + 2 * field, index, inside, splits, sets, SPLITS)
    return plain, pulled, level
