"""What a plan is made of and found by: the form of each tensor, without its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Form", "form"]

_ALIGNED = 16  # bytes; compiled kernels depend on whether memory begins so


class Form(NamedTuple):
    """Type, shape, strides, place and alignment of a tensor."""

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
        """Return that of ``empty_like``: the same order in memory, without gaps."""
        fresh = torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta")
        return self._replace(strides=torch.empty_like(fresh).stride(), aligned=True)

    def beside(self, other: Form) -> bool:
        """Whether it broadcasts against a tensor of as many axes."""
        return len(self.shape) == len(other.shape) and all(
            own in (1, size) for own, size in zip(self.shape, other.shape, strict=True)
        )

    def steps(self) -> tuple[int | None, ...]:
        """The strides of axes along which the tensor changes; None elsewhere."""
        pairs = zip(self.shape, self.strides, strict=True)
        return tuple(stride if size > 1 and stride else None for size, stride in pairs)

    @property
    def reach(self) -> int:
        """How far its last value lies behind its first."""
        return sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))

    @property
    def numel(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)

    def new(self) -> Tensor:
        """Return memory of this form."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=self.device)


def form(tensor: Tensor | None) -> Form | None:
    """Return the form of a tensor; None of None."""
    if tensor is None:
        return None
    return Form(
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.device,
        tensor.data_ptr() % _ALIGNED == 0,
    )
