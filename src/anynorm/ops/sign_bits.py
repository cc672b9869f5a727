"""One bit for each value: which of them an activation let through.

The i-th bit, of value ``1 << i % 8`` in byte ``i // 8``, belongs to the i-th value in the memory
order of ``empty_like(x)``.  Eight bytes more than needed let a kernel write whole words.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fake", "pack", "unpack"]

_SPARE = 8


def fake(x: Tensor, kept: bool) -> Tensor:
    """Return uninitialised bits for the values of `x`; none where they are not `kept`."""
    return x.new_empty((x.numel() + 7) // 8 + _SPARE if kept else 0, dtype=torch.uint8)


def pack(mask: Tensor, x: Tensor) -> Tensor:
    """Return the bits of `mask`, of the shape of `x`."""
    flat = mask.permute(_order(x)).reshape(-1).to(torch.uint8)
    missing = -len(flat) % 8
    values = torch.nn.functional.pad(flat, (0, missing)).view(-1, 8) << _positions(x)
    return torch.nn.functional.pad(values.sum(1, dtype=torch.uint8), (0, _SPARE))


def unpack(bits: Tensor, x: Tensor) -> Tensor:
    """Return the mask of the shape of `x` that :func:`pack` made `bits` of."""
    order = _order(x)
    flat = (bits[: (x.numel() + 7) // 8, None] >> _positions(x) & 1).view(-1)[: x.numel()]
    back = sorted(range(x.dim()), key=order.__getitem__)
    return flat.view([x.shape[axis] for axis in order]).permute(back).to(torch.bool)


def _order(x: Tensor) -> list[int]:
    """The axes in the order in which ``empty_like(x)`` lies in memory."""
    strides = torch.empty_like(x, device="meta").stride()
    return sorted(range(x.dim()), key=strides.__getitem__, reverse=True)


def _positions(x: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=x.device)
