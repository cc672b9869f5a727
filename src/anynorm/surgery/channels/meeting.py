"""How the labels of values that meet go together, and axes that keep their size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anynorm.surgery.channels.labels import narrowed, uniform, varying
from anynorm.surgery.channels.operators import Operator

__all__ = ["fix", "met", "over"]


def met(op: Operator, one: Tensor, other: Tensor) -> Tensor:
    """The labels of values that meet one by one."""
    one, other = _against(op, one, other), _against(op, other, one)
    op.labels.unite(one, other)
    one, other = torch.broadcast_tensors(one, other)
    return torch.where(one != 0, one, other)


def _against(op: Operator, labels: Tensor, facing: Tensor) -> Tensor:
    """Lock channels that meet values of no channel along their own axis: those stay as many.

    A vector along another axis than that of the channels stays too, such as the angles for the
    values of each head.  Returns the labels, 0 for such a vector.
    """
    why = f"{op.name} with values that are not cut"
    for axis in _shared(labels, facing):
        if not facing.any() or _crosses(op, facing, labels):
            fix(op, labels, axis, why)
        else:
            both = torch.broadcast_tensors(labels, facing)
            op.lock(both[0][both[1] == 0], why)
    if _crosses(op, labels, facing):
        op.lock(labels, why)
        return torch.zeros_like(labels)
    return labels


def _shared(labels: Tensor, facing: Tensor) -> list[int]:
    """The axes along which labels vary that `facing` has too."""
    sizes = [1] * (labels.dim() - facing.dim()) + list(facing.shape[-labels.dim() :])
    return [axis for axis in varying(labels) if sizes[axis] > 1]


def _crosses(op: Operator, vector: Tensor, labels: Tensor) -> bool:
    """Whether a vector lies along one axis of `labels`, which are channels along another one."""
    if not _shared(vector, labels):
        return False
    others = set(varying(labels)) - set(_shared(labels, vector))
    return bool(others) and not uniform(op.labels.roots(narrowed(labels)), others)


def fix(op: Operator, labels: Tensor, axis: int, why: str) -> Tensor:
    """Let an axis keep its size: what lies along it goes together, or not at all.

    So the values of a head of attention become one channel.  Returns the labels across the axis.
    """
    axis %= labels.dim()
    across, rows = labels.narrow(axis, 0, 1), narrowed(labels)
    if set(varying(op.labels.roots(rows))) <= {axis}:
        op.lock(rows, why)
        return torch.zeros_like(across)
    op.lock(rows[(rows == 0).any(axis, keepdim=True).expand_as(rows)], why)
    op.labels.unite(rows, rows.narrow(axis, 0, 1))
    return across


def over(op: Operator, x: Tensor, axes: Sequence[int] | range, why: str) -> Tensor:
    """The labels across axes whose values are taken together, and which keep their size."""
    for axis in axes:
        x = x.narrow(axis, 0, 1) if uniform(x, [axis]) else fix(op, x, axis, why)
    return x
