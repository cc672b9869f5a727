"""How the work is cut: a small rule from shape and device, in place of an autotuner.

Blocks are powers of two.  The axis nearest in memory comes first, so that a warp reads whole lines;
a set that fits in the registers of a program is kept there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from anynorm.kernels.triton.geometry import Axes, Axis

__all__ = [
    "Tile",
    "columns",
    "merging",
    "oriented",
    "power_of_two",
    "resident",
    "splits",
    "streaming",
]

_LINE = 128  # values side by side that make a read efficient
_TOGETHER = 4  # neighbours in one read
_SECTOR = 32  # fewer of them waste what is read
_STREAMED = 4096  # values of a tile that is walked along
_UNCUT = 256  # at most as many of C where it may not be cut
_SIDE = 1024  # at most as many of the axis that is not walked along
_LEAST = 2048  # values of a resident tile, where there are as many sets
_MOST_WARPS = 32 if torch.version.hip is None else 16  # of 64 threads there
_WALKING = 8  # warps of a multiprocessor, whose registers hold what they add up
_PROGRAMS_PER_UNIT = 4
_MOST_SPLITS = 512
_MERGED = 4096  # parts of statistics that a program takes together
_SMALL = 1 << 20  # values that one launch handles best, however few its programs


class Tile(NamedTuple):
    """Values along A, B and C, and the warps that share them."""

    a: int
    b: int
    c: int
    warps: int

    @classmethod
    def of(cls, a: int, b: int, c: int, per_thread: int) -> Tile:
        """Return the tile with warps enough that each thread has so many values."""
        warps = a * b * c // (32 * per_thread)
        return cls(a, b, c, max(1, min(_MOST_WARPS, warps)))

    def options(self, wide: bool) -> dict[str, int | bool]:
        """Return what a launch is told; `wide` where places do not fit in 32 bits."""
        return {"BA": self.a, "BB": self.b, "BC": self.c, "WIDE": wide, "num_warps": self.warps}

    def blocks(self, axes: Axes) -> int:
        """How many tiles B is cut in."""
        return -(-axes.b.size // self.b)

    def tails(self, axes: Axes) -> bool:
        """Whether lanes are empty in the midst of a walk: at the end of A, for each block of C."""
        return axes.a.size % self.a != 0 and axes.c.size > self.c

    def rows(self, axes: Axes) -> int:
        """How many tiles A is cut in."""
        return -(-axes.a.size // self.a)


def power_of_two(size: int) -> int:
    """Return the least power of two that is not less."""
    return 1 << (size - 1).bit_length()


def oriented(axes: Axes, affine: int | None = None) -> Axes | None:
    """Return the axes with that as A which has more tiles.

    C may not be cut where γ, whose strides have the index `affine`, differs along it and its
    gradient is added up.  None where that would be so for both.
    """
    along_a = affine is not None and axes.a.strides[affine] is not None
    along_c = affine is not None and axes.c.strides[affine] is not None
    must, cannot = along_c and axes.c.size > _UNCUT, along_a and axes.a.size > _UNCUT
    if must and cannot:
        return None
    longer = axes.c.size // _SIDE > axes.a.size * _SIDE // _STREAMED
    swap = must or (longer and not cannot)
    return axes._replace(a=axes.c, c=axes.a) if swap else axes


def resident(axes: Axes, most: int, per_thread: int, units: int) -> Tile | None:
    """Return a tile of whole sets, of at most `most` values; None where that does not pay."""
    a, c = power_of_two(axes.a.size), power_of_two(axes.c.size)
    b = power_of_two(axes.b.size)
    near = _near(axes)
    width = _SECTOR if near is axes.b else _SECTOR // power_of_two(near.size)
    b = min(b, max(width, _LEAST // (a * c), 1))
    if a * b * c > (most if _is_aligned(axes) else most // 4):
        return None
    tile = Tile.of(a, b, c, per_thread)
    fills = axes.p.size * tile.blocks(axes) >= units
    return tile if fills or axes.sets * axes.length <= _SMALL else None


def streaming(axes: Axes, affine: int | None = None, per_thread: int = 16) -> Tile:
    """Return a tile that is walked along A, and along C where that is longer.

    C is not cut where γ, whose strides have the index `affine`, differs along it.
    """
    c = _side(axes.c.size)
    near = _near(axes)
    if near is axes.b:
        b = min(power_of_two(axes.b.size), _LINE)
        if affine is None or axes.c.strides[affine] is None:
            c = min(c, max(1, _STREAMED // (4 * b)))
        b = min(b, _STREAMED // c)
    elif near is axes.c:
        b = min(power_of_two(axes.b.size), max(1, _LINE // c))
    else:
        b = 1
    a = min(power_of_two(axes.a.size), max(1, _STREAMED // (b * c)))
    return Tile.of(a, b, c, per_thread)


def splits(axes: Axes, tile: Tile, units: int) -> int:
    """Return into how many parts A is cut, so that the device has work everywhere."""
    programs = axes.p.size * tile.blocks(axes)
    wanted = -(-units * _PROGRAMS_PER_UNIT // programs)
    return max(1, min(wanted, tile.rows(axes), _MOST_SPLITS))


def merging(parts: int) -> int:
    """Return of how many sets a program takes so many parts together."""
    return max(1, _MERGED // power_of_two(parts))


def columns(axes: Axes, tile: Tile, others: int, units: int) -> int:
    """Return by how many programs B is walked, where each adds up what it has on its way.

    `others`: programs for each of them.
    """
    programs = units * max(1, _WALKING // tile.warps)
    return max(1, min(tile.blocks(axes), -(-programs // others)))


def _is_aligned(axes: Axes) -> bool:
    """Whether neighbours can be read together; if not each value takes registers of its own."""
    near = _near(axes)
    steps = (step for axis in axes if (step := axis.strides[0]) is not None and axis is not near)
    return math.gcd(near.size, *steps) % _TOGETHER == 0


def _near(axes: Axes) -> Axis:
    """The axis along which x has the least stride."""
    steps = [(axis.strides[0], axis) for axis in (axes.a, axes.b, axes.c)]
    found = ((step, axis) for step, axis in steps if step is not None)
    return min(found, key=lambda s: s[0], default=(0, axes.c))[1]


def _side(size: int) -> int:
    """A block for C that leaves few lanes empty."""
    if size <= _SIDE // 4:
        return power_of_two(size)
    blocks = (_SIDE, _SIDE // 2, _SIDE // 4)
    return min(
        (b for b in blocks if b <= power_of_two(size)),
        key=lambda b: -(-size // b) * b * (1 + 64 / b),
    )
