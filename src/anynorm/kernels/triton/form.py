"""The form of a tensor: all that a plan depends on, without the values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Form", "form"]

_ALIGNED = 16  # bytes; compiled kernels depend on whether the address is a multiple of this


class Form(NamedTuple):
    """Type, shape, strides, device and alignment of a tensor."""

    dtype: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    device: Any
    aligned: bool = True

    def like(self, shape: Sequence[int], dtype: torch.dtype) -> Form:
        """Return the form of a contiguous tensor on the same device."""
        fresh = torch.empty(list(shape), dtype=dtype, device="meta")
        return Form(dtype, tuple(shape), fresh.stride(), self.device)

    def dense(self) -> Form:
        """Return the form of ``empty_like``: the same order in memory, without gaps."""
        fresh = torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta")
        return self._replace(strides=torch.empty_like(fresh).stride(), aligned=True)

    def beside(self, other: Form) -> bool:
        """Whether it broadcasts against a tensor with the same number of axes."""
        return len(self.shape) == len(other.shape) and all(
            own in (1, size) for own, size in zip(self.shape, other.shape, strict=True)
        )

    def steps(self) -> tuple[int | None, ...]:
        """The strides of the axes along which the tensor varies; None for other axes."""
        pairs = zip(self.shape, self.strides, strict=True)
        return tuple(stride if size > 1 and stride else None for size, stride in pairs)

    @property
    def reach(self) -> int:
        """The distance in memory from the first value to the last."""
        return sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))

    @property
    def numel(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    def new(self) -> Tensor:
        """Return uninitialized memory of this form."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=self.device)


def form(tensor: Tensor | None) -> Form | None:
    """Return the form of a tensor, or None for None."""
    if tensor is None:
        return None
    return Form(
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.device,
        tensor.data_ptr() % _ALIGNED == 0,
    )
