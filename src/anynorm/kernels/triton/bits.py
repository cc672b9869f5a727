"""Bits: whether each input of φ is positive or NaN, in the layout of `anynorm.ops.sign_bits`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from anynorm.kernels.triton.form import Form
from anynorm.kernels.triton.geometry import Axes
from anynorm.kernels.triton.launch_plan import LaunchPlan, Slot
from anynorm.kernels.triton.tiles import Tile

__all__ = ["axis", "fill", "form"]

_BLOCK = 1024
_SPARE = 8


def form(x: Form, wanted: bool) -> Form:
    """Return the form of the bits of the values of `x`; it is empty if `wanted` is false."""
    return x.like([(x.numel + 7) // 8 + _SPARE if wanted else 0], torch.uint8)


def axis(axes: Axes, tile: Tile, index: int) -> int | None:
    """Return the axis of (A, B, C) along which a tile has whole bytes; None if there is none.

    `index` is the index of the strides of y, which is contiguous in memory.
    """
    for place, (along, block) in enumerate(zip(axes[1:], tile[:3], strict=True)):
        if along.strides[index] == 1 and along.size % 8 == 0 and block % 8 == 0:
            return place
    return None


def fill(plan: LaunchPlan, size: int) -> None:
    """Write the bits from y, whose signs are those of the input of φ (φ is `by_sign`)."""
    plan.launch(
        _fill, triton.cdiv(size, 8 * _BLOCK), Slot("y"), Slot("sign_mask"), size, BLOCK=_BLOCK
    )


@triton.jit
def _fill(y, sign_mask, size, BLOCK: tl.constexpr):
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place = byte[:, None] * 8 + tl.arange(0, 8)[None, :]
    values = tl.load(y + place, mask=place < size, other=0).to(tl.float32)
    bits = ((values <= 0) == 0).to(tl.int32) << tl.arange(0, 8)[None, :]
    tl.store(sign_mask + byte, tl.sum(bits, 1).to(tl.uint8), mask=byte * 8 < size)
