"""Memory: what a layer keeps for its backward pass, and a process has at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from anynorm.bench.layers import Inputs

__all__ = ["kept", "peak_megabytes"]


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


def peak_megabytes() -> float:
    """Return the most memory that this process has had so far.

    Linux' own count begins with the process, getrusage's with its parent's.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
