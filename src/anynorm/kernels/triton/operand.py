"""How a kernel sees a tensor: memory, and a step along each of the four axes (P, A, B, C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import triton.language as tl

__all__ = ["A", "B", "C", "Extent", "Operand", "P"]

P, A, B, C = (tl.constexpr(1 << axis) for axis in range(4))

_WHOLE = 16  # values; no read is wider
_NONE = 3  # of the axes A, B and C


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

    `has` names the axes along which it changes, by the bits of :data:`P`, :data:`A`, :data:`B` and
    :data:`C`: equal values need not be loaded.  Along the axis `near` of (A, B, C) neighbours are
    neighbours in memory (3 for none); all other strides are multiples of `unit`, and counted in it.
    """

    data: Any
    p: int
    a: int
    b: int
    c: int
    has: Any
    near: Any
    unit: Any

    @classmethod
    def of(cls, data: Any, strides: Sequence[int | None]) -> Operand:
        """Return the operand of a tensor with these strides along P, A, B and C."""
        near = next((axis for axis, stride in enumerate(strides[1:]) if stride == 1), _NONE)
        others = [s for axis, s in enumerate(strides, -1) if s is not None and axis != near]
        unit = math.gcd(*others, _WHOLE)
        p, a, b, c = (
            (s or 0) if axis == near else (s or 0) // unit for axis, s in enumerate(strides, -1)
        )
        has = sum((s is not None) << bit for bit, s in enumerate(strides))
        return cls(data, p, a, b, c, *map(tl.constexpr, (has, near, unit)))
