"""The memory that a model keeps for its backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anynorm.surgery.snapshot import preserved

__all__ = ["bytes_for_backward"]


def bytes_for_backward(model: nn.Module, x: Tensor) -> int:
    """Return the bytes that one forward pass on `x`, in the present mode, keeps for backward.

    A tensor that is kept twice, or in views, counts once. Parameters and buffers do not count; `x`
    counts if a layer keeps it. The model does not change.

    >>> bytes_for_backward(nn.ReLU(), torch.randn(5, 2, requires_grad=True))
    40
    """
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with preserved(model), torch.enable_grad(), hooks:
        output = model(x)
        # Count while the graph is alive, since the addresses of freed memory are reused.
        total = _distinct_bytes(kept, [*model.parameters(), *model.buffers()])
        del output
    return total


def _distinct_bytes(tensors: list[Tensor], excluded: list[Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    known = {tensor.untyped_storage().data_ptr() for tensor in excluded}
    return sum(storage.nbytes() for at, storage in storages.items() if at not in known)
