"""How a kernel sees a tensor: memory, and a step along each of the four axes (P, A, B, C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import triton.language as tl

__all__ = ["Extent", "Operand"]

_WHOLE = 16  # values; no read is wider


class Extent(NamedTuple):
    """A size as units · unit.

    The compiler learns from a `unit` that it knows how many values one read may take.
    """

    units: int
    unit: Any

    @classmethod
    def of(cls, size: int) -> Extent:
        """Return the extent of a size."""
        unit = math.gcd(size, _WHOLE)
        return cls(size // unit, tl.constexpr(unit))


class Operand(NamedTuple):
    """A tensor, or its address in a kernel, with its strides.

    They are None for an axis along which it does not change, which spares the kernel the loads of
    equal values.  Along the axis `near` of (A, B, C) neighbours are neighbours in memory; all other
    strides are multiples of `unit`, and counted in it.
    """

    data: Any
    p: int | None
    a: int | None
    b: int | None
    c: int | None
    near: Any
    unit: Any

    @classmethod
    def of(cls, data: Any, strides: Sequence[int | None]) -> Operand:
        """Return the operand of a tensor with these strides along P, A, B and C."""
        near = next((axis for axis, stride in enumerate(strides[1:]) if stride == 1), None)
        others = [s for axis, s in enumerate(strides, -1) if s is not None and axis != near]
        unit = math.gcd(*others, _WHOLE)
        p, a, b, c = (
            s if s is None or axis == near else s // unit for axis, s in enumerate(strides, -1)
        )
        return cls(data, p, a, b, c, tl.constexpr(near), tl.constexpr(unit))
