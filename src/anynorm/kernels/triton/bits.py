"""One bit for each value: which of them φ let through, as :mod:`anynorm.ops.bits` lays them out."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from anynorm.kernels.triton.geometry import Axes
from anynorm.kernels.triton.tiles import Tile

__all__ = ["axis", "empty", "fill"]

_BLOCK = 1024
_SPARE = 8


def empty(x: Tensor, wanted: bool) -> Tensor | None:
    """Return memory for the bits of the values of `x`; None where none are `wanted`."""
    return x.new_empty((x.numel() + 7) // 8 + _SPARE, dtype=torch.uint8) if wanted else None


def axis(axes: Axes, tile: Tile, index: int) -> int | None:
    """Return along which of (A, B, C) a tile has whole bytes; None if along none.

    `index` is that of the strides of y, which fills its memory.
    """
    for place, (along, block) in enumerate(zip(axes[1:], tile[:3], strict=True)):
        if along.strides[index] == 1 and along.size % 8 == 0 and block % 8 == 0:
            return place
    return None


def fill(kept: Tensor, y: Tensor) -> None:
    """Write the bits of y, which are those of what φ was applied to, where it goes by the sign."""
    size = y.numel()
    _fill[(triton.cdiv(size, 8 * _BLOCK),)](y, kept, size, BLOCK=_BLOCK)


@triton.jit
def _fill(y, kept, size, BLOCK: tl.constexpr):
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place = byte[:, None] * 8 + tl.arange(0, 8)[None, :]
    values = tl.load(y + place, mask=place < size, other=0).to(tl.float32)
    bits = ((values <= 0) == 0).to(tl.int32) << tl.arange(0, 8)[None, :]
    tl.store(kept + byte, tl.sum(bits, 1).to(tl.uint8), mask=byte * 8 < size)
