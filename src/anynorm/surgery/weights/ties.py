"""Find the names of a state dict that share one tensor."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

__all__ = ["first_names"]


def first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """The first name of the tensor behind each name: its own, unless the tensor is tied.

    Tied are the same values in the same order; views that share only some, or that are transposed,
    are not.

    >>> weight = torch.zeros(2, 2)
    >>> first_names({"a": weight, "b": weight, "c": weight.T})
    {'a': 'a', 'b': 'a', 'c': 'c'}
    """
    first: dict[Hashable, str] = {}
    return {name: first.setdefault(_identity(name, t), name) for name, t in state.items()}


def _identity(name: str, value: object) -> Hashable:
    """A key that only tied tensors share; a tensor without memory is tied to nothing."""
    if not isinstance(value, Tensor) or is_lazy(value) or value.is_meta:
        return name
    if value.layout != torch.strided or not value.numel():
        return name
    place = (value.device, value.data_ptr())
    return (*place, value.dtype, value.shape, value.stride())
