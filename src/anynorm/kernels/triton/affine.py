"""Parts of kernels: γ and β, their gradients, and the residual.  None where there is none."""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.index import load, store

__all__ = ["added", "leave_part", "plus", "times", "zeros_like"]


@triton.jit
def times(values, operand, at, inside, KEEP: tl.constexpr = ""):
    """Return values · operand."""
    if operand is None:
        return values
    else:
        return values * load(operand, at, inside, KEEP)


@triton.jit
def plus(values, operand, at, inside, KEEP: tl.constexpr = ""):
    """Return values + operand."""
    if operand is None:
        return values
    else:
        return values + load(operand, at, inside, KEEP)


@triton.jit
def zeros_like(operand, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    """Return where the gradient of an operand is added up."""
    a: tl.constexpr = 1 if operand is None or operand.a is None else A
    b: tl.constexpr = 1 if operand is None or operand.b is None else B
    c: tl.constexpr = 1 if operand is None or operand.c is None else C
    return tl.zeros((a, b, c), tl.float32)


@triton.jit
def added(total, values, operand):
    """Return the total with the sum of `values` over the axes that the operand does not have."""
    if operand is None:
        return total
    else:
        if operand.c is None and values.shape[2] > 1:
            values = tl.sum(values, 2, keep_dims=True)
        if operand.b is None and values.shape[1] > 1:
            values = tl.sum(values, 1, keep_dims=True)
        if operand.a is None and values.shape[0] > 1:
            values = tl.sum(values, 0, keep_dims=True)
        return total + values


@triton.jit
def leave_part(operand, numel, at, inside, part, values):
    """Write this program's part of a gradient of `numel` values.

    Parts are numbered along the axes that the operand does not have: `part` says this program's
    number of A among how many, and of B.
    """
    if operand is not None:
        block_a, rows, block_b, columns = part
        row = tl.zeros((), tl.int64)
        if operand.p is None:
            row = row + at[0]
        if operand.a is None:
            row = row * rows + block_a
        if operand.b is None:
            row = row * columns + block_b
        store(operand, at, inside, values, row * numel)
