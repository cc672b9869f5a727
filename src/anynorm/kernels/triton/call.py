"""What every launch needs to know of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anynorm.kernels.triton.geometry import Axes, find
from anynorm.kernels.triton.operand import Extent, Operand

__all__ = ["Call", "call"]

_FAR = 1 << 31
_INTERPRETED_UNITS = 4

Tensors = Mapping[str, Tensor | None]


@dataclass(frozen=True)
class Call:
    """Tensors by name, and the axes in which they are seen."""

    tensors: Tensors
    axes: Axes
    wide: bool

    def operand(self, name: str, data: Tensor | None = None) -> Operand | None:
        """Return the tensor of that name as kernels see it, or `data`, which lies as it does."""
        tensor = self.tensors[name]
        if tensor is None:
            return None
        return Operand.of(tensor if data is None else data, self.axes.steps(self.index(name)))

    def operands(self, *names: str) -> list[Operand | None]:
        """Return several."""
        return [self.operand(name) for name in names]

    def seen(self, axes: Axes) -> Call:
        """Return the call with other axes for the same tensors."""
        return replace(self, axes=axes)

    def index(self, name: str) -> int:
        """The place of a tensor's strides in the axes."""
        return list(self.tensors).index(name)

    @property
    def x(self) -> Tensor:
        """The input."""
        x = self.tensors["x"]
        assert x is not None
        return x

    @property
    def units(self) -> int:
        """How many multiprocessors the device has."""
        device = self.x.device
        if device.type != "cuda":
            return _INTERPRETED_UNITS
        return int(torch.cuda.get_device_properties(device).multi_processor_count)

    @property
    def affine(self) -> int | None:
        """The place of γ's strides, or β's; None without both."""
        for name in ("weight", "bias"):
            if self.tensors[name] is not None:
                return self.index(name)
        return None

    @property
    def numel(self) -> int:
        """How many values γ has."""
        found = [t for name in ("weight", "bias") if (t := self.tensors[name]) is not None]
        return found[0].numel() if found else 0

    @property
    def differs_inside(self) -> bool:
        """Whether γ differs between the values of a statistic."""
        if self.affine is None:
            return False
        return any(axis.strides[self.affine] is not None for axis in (self.axes.a, self.axes.c))

    @property
    def sizes(self) -> tuple[Extent, ...]:
        """Those of A, B and C."""
        return tuple(Extent.of(axis.size) for axis in self.axes[1:])


def call(dims: Sequence[int], tensors: Tensors) -> Call | None:
    """Return the call for tensors that broadcast against the first; None if kernels see no axes.

    Statistics are over `dims`.
    """
    x, *_ = tensors.values()
    assert x is not None
    shape = tuple(x.shape)
    strides = tuple(_strides(tensor, shape) for tensor in tensors.values())
    axes = find(shape, tuple(dims), strides)
    if axes is None:
        return None
    return Call(tensors, axes, any(_reach(shape, each) >= _FAR for each in strides))


def _strides(tensor: Tensor | None, shape: Sequence[int]) -> tuple[int | None, ...]:
    """Those along which the tensor changes; None elsewhere."""
    if tensor is None:
        return (None,) * len(shape)
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return tuple(stride if size > 1 and stride else None for size, stride in pairs)


def _reach(shape: Sequence[int], strides: Sequence[int | None]) -> int:
    return sum((size - 1) * (stride or 0) for size, stride in zip(shape, strides, strict=True))
