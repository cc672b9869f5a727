"""Memory: what a layer keeps for its backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.layers import Inputs

__all__ = ["kept"]


def kept(layer: nn.Module, given: Inputs) -> dict[str, int]:
    """Bytes of the distinct storages kept for backward, and how many of these are x's.

    Parameters and buffers, which are there in any case, do not count.
    """
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(*given.forward)
    for own in (*layer.parameters(), *layer.buffers()):
        storages.pop(own.untyped_storage().data_ptr(), None)
    del y
    x = storages.get(given.x.untyped_storage().data_ptr())
    total = sum(storage.nbytes() for storage in storages.values())
    return {"bytes": total, "x": x.nbytes() if x else 0}
