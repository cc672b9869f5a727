"""Functions for kernels: γ, β, their gradients, and the residual.  An absent operand is None."""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.index import NO_HINT, load, store
from anynorm.kernels.triton.operand import A, B, C, P

__all__ = ["added", "leave_part", "plus", "times", "zeros_like"]


@triton.jit
def times(values, operand, at, inside, KEEP: tl.constexpr = NO_HINT):
    """Return values · operand."""
    if operand is None:
        return values
    else:
        return values * load(operand, at, inside, KEEP)


@triton.jit
def plus(values, operand, at, inside, KEEP: tl.constexpr = NO_HINT):
    """Return values + operand."""
    if operand is None:
        return values
    else:
        return values + load(operand, at, inside, KEEP)


@triton.jit
def zeros_like(operand, BA: tl.constexpr, BB: tl.constexpr, BC: tl.constexpr):
    """Return zeros, the accumulator of an operand's gradient."""
    a: tl.constexpr = 1 if operand is None or not operand.has & A else BA
    b: tl.constexpr = 1 if operand is None or not operand.has & B else BB
    c: tl.constexpr = 1 if operand is None or not operand.has & C else BC
    return tl.zeros((a, b, c), tl.float32)


@triton.jit
def added(total, values, operand):
    """Add to the total the sum of `values` over the axes that the operand does not have."""
    if operand is None:
        return total
    else:
        if not operand.has & C and values.shape[2] > 1:
            values = tl.sum(values, 2, keep_dims=True)
        if not operand.has & B and values.shape[1] > 1:
            values = tl.sum(values, 1, keep_dims=True)
        if not operand.has & A and values.shape[0] > 1:
            values = tl.sum(values, 0, keep_dims=True)
        return total + values


@triton.jit
def leave_part(operand, numel, at, inside, part, values):
    """Write this program's partial gradient of `numel` values, as one row.

    Rows are numbered along the axes that the operand does not have.  `part` is this program's index
    along A, the number of programs along A, and the same two for B.
    """
    if operand is not None:
        block_a, rows, block_b, columns = part
        row = tl.zeros((), tl.int64)
        if not operand.has & P:
            row = row + at[0]
        if not operand.has & A:
            row = row * rows + block_a
        if not operand.has & B:
            row = row * columns + block_b
        store(operand, at, inside, values, row * numel)
