"""How work is divided into tiles: simple rules from shape and device, instead of an autotuner.

Blocks are powers of two.  The axis with the least stride is filled first, so that a warp reads
whole cache lines.  A set that fits in the registers of a program is kept there.
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

_LINE = 128  # adjacent values that make a read efficient
_TOGETHER = 4  # adjacent values in one read
_SECTOR = 32  # fewer adjacent values waste memory bandwidth
_STREAMED = 4096  # values of a streaming tile
_UNCUT = 256  # the largest C if it may not be cut
_SIDE = 1024  # the most values of the axis that is not looped over
_LEAST = 2048  # least values of a resident tile, if there are enough sets
_MOST_WARPS = 32 if torch.version.hip is None else 16  # of 64 threads there
_WALKING = 8  # warps of a multiprocessor whose registers hold their sums
_PROGRAMS_PER_UNIT = 4
_MOST_SPLITS = 512
_MERGED = 4096  # partial statistics that one program merges
_SMALL = 1 << 20  # values for which one launch is best, even with few programs


class Tile(NamedTuple):
    """A tile: its sizes along A, B and C, and its number of warps."""

    a: int
    b: int
    c: int
    warps: int

    @classmethod
    def of(cls, a: int, b: int, c: int, per_thread: int) -> Tile:
        """Return the tile with enough warps for `per_thread` values in each thread."""
        warps = a * b * c // (32 * per_thread)
        return cls(a, b, c, max(1, min(_MOST_WARPS, warps)))

    def options(self, wide: bool) -> dict[str, int | bool]:
        """Return the options of a launch; `wide`: offsets do not fit in 32 bits."""
        return {"BA": self.a, "BB": self.b, "BC": self.c, "WIDE": wide, "num_warps": self.warps}

    def blocks(self, axes: Axes) -> int:
        """The number of tiles along B."""
        return -(-axes.b.size // self.b)

    def tails(self, axes: Axes) -> bool:
        """Whether lanes are empty amid the loops: at the end of A, for each block of C."""
        return axes.a.size % self.a != 0 and axes.c.size > self.c

    def rows(self, axes: Axes) -> int:
        """The number of tiles along A."""
        return -(-axes.a.size // self.a)


def power_of_two(size: int) -> int:
    """Return the least power of two that is not less than `size`."""
    return 1 << (size - 1).bit_length()


def oriented(axes: Axes, affine: int | None = None) -> Axes | None:
    """Return the axes, with A and C exchanged if C has more tiles.

    C may not be cut if γ varies along it and the gradient of γ is summed (`affine` is the index of
    γ's strides).  The result is None if neither axis may be cut.
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
    """Return a tile of whole sets, with at most `most` values; None if that is not faster."""
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
    """Return a tile for loops over A, and over C if C is longer than the tile.

    C is not cut if γ varies along it (`affine` is the index of γ's strides).
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
    """Return the number of parts of A that gives all multiprocessors work."""
    programs = axes.p.size * tile.blocks(axes)
    wanted = -(-units * _PROGRAMS_PER_UNIT // programs)
    return max(1, min(wanted, tile.rows(axes), _MOST_SPLITS))


def merging(parts: int) -> int:
    """Return the number of sets whose `parts` partial results one program merges."""
    return max(1, _MERGED // power_of_two(parts))


def columns(axes: Axes, tile: Tile, others: int, units: int) -> int:
    """Return the number of programs that loop over B, each with its own partial gradient.

    `others`: the number of programs along the other axes.
    """
    programs = units * max(1, _WALKING // tile.warps)
    return max(1, min(tile.blocks(axes), -(-programs // others)))


def _is_aligned(axes: Axes) -> bool:
    """Whether adjacent values can be read together; otherwise each takes its own registers."""
    near = _near(axes)
    steps = (step for axis in axes if (step := axis.strides[0]) is not None and axis is not near)
    return math.gcd(near.size, *steps) % _TOGETHER == 0


def _near(axes: Axes) -> Axis:
    """The axis along which x has the smallest stride."""
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
