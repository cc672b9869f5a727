"""Turn the strides of tensors into the four axes (P, A, B, C) by which kernels address them.

Statistics are over A and C, one for each (p, b).  Kernels loop over A and split it between
programs; C is the second reduced axis.  The four axes may have any order in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Axes", "Axis", "find"]


class Axis(NamedTuple):
    """Adjacent dims of one kind, merged: their size, and each tensor's stride.

    A stride is None if the tensor does not vary along them.
    """

    size: int
    strides: tuple[int | None, ...]


class Axes(NamedTuple):
    """The axes of a call.  Missing ones have size 1."""

    p: Axis
    a: Axis
    b: Axis
    c: Axis

    @property
    def sets(self) -> int:
        """The number of statistics."""
        return self.p.size * self.b.size

    @property
    def length(self) -> int:
        """The number of values in a set, those of one statistic."""
        return self.a.size * self.c.size

    def steps(self, index: int) -> tuple[int | None, ...]:
        """The strides of the tensor with this index."""
        return tuple(axis.strides[index] for axis in self)


def find(
    shape: Sequence[int], reduced: Sequence[int], strides: Sequence[Sequence[int | None]]
) -> Axes | None:
    """Return the axes for tensors of these strides, the input first; None if four are too few."""
    order = sorted(
        (dim for dim, size in enumerate(shape) if size > 1),
        key=lambda dim: strides[0][dim] or 0,
        reverse=True,
    )
    merged = _merge([(dim in reduced, _axis(shape, strides, dim)) for dim in order])
    kept, over = (
        [axis for is_reduced, axis in merged if is_reduced is kind] for kind in (False, True)
    )
    if len(kept) > 2 or len(over) > 2:
        return None
    nothing = Axis(1, (None,) * len(strides))
    p, b = [nothing, nothing, *kept][-2:]
    a, c = (*over, nothing, nothing)[:2]
    return Axes(p, a, b, c)


def _axis(shape: Sequence[int], strides: Sequence[Sequence[int | None]], dim: int) -> Axis:
    return Axis(shape[dim], tuple(each[dim] for each in strides))


def _merge(axes: Sequence[tuple[bool, Axis]]) -> list[tuple[bool, Axis]]:
    merged: list[tuple[bool, Axis]] = []
    for kind, axis in axes:
        if merged and merged[-1][0] is kind and _follow(merged[-1][1], axis):
            axis = Axis(merged.pop()[1].size * axis.size, axis.strides)
        merged.append((kind, axis))
    return merged


def _follow(outer: Axis, inner: Axis) -> bool:
    """Whether, for every tensor, a step along `outer` is a step past the end of `inner`."""
    return all(
        (far is None and near is None)
        or (far is not None and near is not None and far == near * inner.size)
        for far, near in zip(outer.strides, inner.strides, strict=True)
    )
