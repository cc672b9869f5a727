"""Functions for kernels: A is split between programs, which write partial results side by side.

The parts are added in a fixed order, so the result does not depend on the order of the programs.
Each row of parts has one value for each set.  There is one row for each split: first those of the
first field, then those of the second, and so on.
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.index import line

__all__ = ["alone", "leave", "merged", "share", "total"]


@triton.jit
def share(A, B, splits, BA: tl.constexpr, BB: tl.constexpr, WIDE: tl.constexpr):
    """Return the share of this program: its split, p, a tile of B, and its range of A."""
    part, group = tl.program_id(0) % splits, tl.program_id(0) // splits
    blocks = tl.cdiv(B, BB)
    b, inside_b = line(group % blocks * BB, B, BB, WIDE)
    length = tl.cdiv(tl.cdiv(A, BA), splits) * BA
    first = tl.minimum(part * length, A)
    last = tl.minimum(first + length, A)
    return part.to(tl.int64), (group // blocks).to(tl.int64), b, inside_b, first, last


@triton.jit
def leave(rows, row, sets, index, inside, values):
    """Write one value for each set of a tile."""
    values = tl.reshape(values, (inside.shape[0],))
    tl.store(rows + row * sets + index, values, mask=inside)


@triton.jit
def alone(values):
    """Return the value of a one-element tile as a scalar, which needs no conversion of layouts."""
    if values.shape[1] == 1:
        return tl.sum(values)
    else:
        return values


@triton.jit
def _taken(rows, field, splits, sets, index, inside, SPLITS: tl.constexpr):
    """Return the rows of a field, for the sets of `index`."""
    part = tl.arange(0, SPLITS)[:, None]
    where = (part + field * splits).to(tl.int64) * sets + index[None, :]
    return tl.load(rows + where, mask=(part < splits) & inside[None, :], other=0)


@triton.jit
def total(rows, field, splits, sets, index, inside, SPLITS: tl.constexpr):
    """Return the sum of a field over the splits."""
    return tl.sum(_taken(rows, field, splits, sets, index, inside, SPLITS), 0)


@triton.jit
def merged(rows, splits, sets, index, inside, SPLITS: tl.constexpr):
    """Return the mean and the mean squared deviation, from the counts, means and spreads."""
    number = _taken(rows, 0, splits, sets, index, inside, SPLITS)
    mean = _taken(rows, 1, splits, sets, index, inside, SPLITS)
    spread = _taken(rows, 2, splits, sets, index, inside, SPLITS)
    count = tl.maximum(tl.sum(number, 0), 1.0)
    middle = tl.sum(number * mean, 0) / count
    away = mean - middle[None, :]
    return middle, tl.sum(spread + number * away * away, 0) / count
