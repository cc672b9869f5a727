"""A tensor as a kernel addresses it: memory, and a stride for each of the axes (P, A, B, C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import triton.language as tl

__all__ = ["A", "B", "C", "Extent", "Operand", "P"]

P, A, B, C = (tl.constexpr(1 << axis) for axis in range(4))

_WHOLE = 16  # values; the widest read
_NONE = 3  # of the axes A, B and C


class Extent(NamedTuple):
    """A size as units · unit.

    `unit` is a compile-time constant; from it the compiler knows how wide a read may be.
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

    `has` is the set of axes along which the tensor varies, by the bits :data:`P`, :data:`A`,
    :data:`B` and :data:`C`; along other axes values are loaded once.  `near` is the axis of
    (A, B, C) with stride 1 (3 if there is none); all other strides are given as multiples of
    `unit`.
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
