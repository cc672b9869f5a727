"""Parts of kernels: A is split between programs, which leave what they found side by side.

Others take it in a fixed order, so that nothing depends on which program comes first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.index import line

__all__ = ["leave", "merged", "share", "sum_of_splits"]


@triton.jit
def share(A, B, splits, BA: tl.constexpr, BB: tl.constexpr, WIDE: tl.constexpr):
    """Return what this program has: the split, p, some of B, and A from the first to the last."""
    part, group = tl.program_id(0) % splits, tl.program_id(0) // splits
    blocks = tl.cdiv(B, BB)
    b, inside_b = line(group % blocks * BB, B, BB, WIDE)
    length = tl.cdiv(tl.cdiv(A, BA), splits) * BA
    first = tl.minimum(part * length, A)
    last = tl.minimum(first + length, A)
    return part.to(tl.int64), (group // blocks).to(tl.int64), b, inside_b, first, last


@triton.jit
def leave(where, values, inside):
    """Write one value for each of B."""
    tl.store(where, tl.reshape(values, (inside.shape[0],)), mask=inside)


@triton.jit
def merged(partial, index, inside, splits, sets, SPLITS: tl.constexpr):
    """Return the mean and the mean squared deviation from it, of what :func:`welford` left."""
    part = tl.arange(0, SPLITS)
    where = part[:, None].to(tl.int64) * sets + index[None, :]
    mask = (part < splits)[:, None] & inside[None, :]
    number = tl.load(partial + where, mask=mask, other=0)
    mean = tl.load(partial + splits * sets + where, mask=mask, other=0)
    spread = tl.load(partial + 2 * splits * sets + where, mask=mask, other=0)
    total = tl.maximum(tl.sum(number, 0), 1.0)
    middle = tl.sum(number * mean, 0) / total
    away = mean - middle[None, :]
    variance = tl.sum(spread + number * away * away, 0) / total
    return middle[None, :, None], variance[None, :, None]


@triton.jit
def sum_of_splits(partial, index, inside, splits, sets, SPLITS: tl.constexpr):
    """Return the sum over the splits, in their order."""
    part = tl.arange(0, SPLITS)
    where = part[:, None].to(tl.int64) * sets + index[None, :]
    mask = (part < splits)[:, None] & inside[None, :]
    return tl.sum(tl.load(partial + where, mask=mask, other=0), 0)[None, :, None]
