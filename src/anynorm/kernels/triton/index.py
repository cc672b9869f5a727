"""Functions for kernels: the offsets of a tile, and its loads and stores.

A tile has the axes (A, B, C) at one index of P.  `at` are the indices (p, a, b, c); `inside` are
the masks of (a, b, c).
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.kernels.triton.operand import A, B, C, P

__all__ = [
    "NO_HINT",
    "cover",
    "extents",
    "length",
    "line",
    "load",
    "load_bits",
    "load_whole",
    "of_set",
    "offset",
    "pack",
    "store",
]

# A constexpr, because Triton 3.6 does not accept a plain string as a default.
NO_HINT = tl.constexpr("")


@triton.jit
def line(first, size, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """Return `BLOCK` indices starting at `first`, and the mask of those below `size`."""
    place = first + tl.arange(0, BLOCK)
    inside = place < size
    if WIDE:
        place = place.to(tl.int64)
    return place, inside


@triton.jit
def of_set(p, b, inside_b, WIDE: tl.constexpr):
    """Return `at` and `inside` for one value of each set: a statistic, or the first of x."""
    none, there = line(0, 1, 1, WIDE)
    return (p, none, b, none), (there, inside_b, there)


@triton.jit
def length(A, C):
    """Return the number of values in a set as a float32; A and C may be constants or not."""
    return tl.full((), 1.0, tl.float32) * A * C


@triton.jit
def cover(inside):
    """Return the mask of a whole tile."""
    return inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]


@triton.jit
def extents(sizes):
    """Return the sizes of A, B and C."""
    a, b, c = sizes
    return a.units * a.unit, b.units * b.unit, c.units * c.unit


@triton.jit
def offset(operand, at):
    """Return the offsets of a tile in memory, with size 1 along axes that the operand lacks."""
    place = tl.zeros((1, 1, 1), tl.int32)
    if operand.has & P:
        place = place + at[0] * operand.p * operand.unit
    if operand.has & A:
        place = (
            place + (at[1] * operand.a * (1 if operand.near == 0 else operand.unit))[:, None, None]
        )
    if operand.has & B:
        place = (
            place + (at[2] * operand.b * (1 if operand.near == 1 else operand.unit))[None, :, None]
        )
    if operand.has & C:
        place = (
            place + (at[3] * operand.c * (1 if operand.near == 2 else operand.unit))[None, None, :]
        )
    return place


@triton.jit
def accept(operand, inside):
    """Return the mask of these offsets."""
    mask = tl.full((1, 1, 1), True, tl.int1)
    if operand.has & A:
        mask = mask & inside[0][:, None, None]
    if operand.has & B:
        mask = mask & inside[1][None, :, None]
    if operand.has & C:
        mask = mask & inside[2][None, None, :]
    return mask


@triton.jit
def load(operand, at, inside, KEEP: tl.constexpr = NO_HINT):
    """Return a tile in float32, with zeros outside; `KEEP` is Triton's eviction policy."""
    pointer = operand.data + offset(operand, at)
    found = tl.load(pointer, mask=accept(operand, inside), other=0, eviction_policy=KEEP)
    return found.to(tl.float32)


@triton.jit
def load_whole(operand, at, inside, KEEP: tl.constexpr = NO_HINT):
    """Return a tile as :func:`load` does, but in full size even if the tensor is expanded."""
    values = load(operand, at, inside, KEEP)
    mask = cover(inside)
    if values.shape == mask.shape:
        return values
    else:
        return tl.where(mask, values, 0.0)


@triton.jit
def store(operand, at, inside, values, first=0):
    """Write a tile in the type of the operand, from the offset `first` on."""
    pointer = operand.data + first + offset(operand, at)
    tl.store(pointer, values, mask=accept(operand, inside))


@triton.jit
def load_bits(operand, at, inside):
    """Return which bits are set; the operand's strides locate them."""
    place = offset(operand, at)
    byte = tl.load(operand.data + (place >> 3), mask=accept(operand, inside), other=0)
    return ((byte.to(tl.int32) >> (place & 7).to(tl.int32)) & 1) != 0


@triton.jit
def pack(bits, AXIS: tl.constexpr):
    """Return a tile of bytes, each made of 8 values along an axis."""
    a: tl.constexpr = bits.shape[0]
    b: tl.constexpr = bits.shape[1]
    c: tl.constexpr = bits.shape[2]
    one = bits.to(tl.int32)
    power = tl.arange(0, 8)
    if AXIS == 0:
        byte = tl.sum(tl.reshape(one, (a // 8, 8, b, c)) << power[None, :, None, None], 1)
    elif AXIS == 1:
        byte = tl.sum(tl.reshape(one, (a, b // 8, 8, c)) << power[None, None, :, None], 2)
    else:
        byte = tl.sum(tl.reshape(one, (a, b, c // 8, 8)) << power[None, None, None, :], 3)
    return byte.to(tl.uint8)
