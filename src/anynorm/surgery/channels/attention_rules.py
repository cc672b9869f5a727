"""The rules for products of two computed values: all values of a head are one channel."""

from __future__ import annotations

from torch import Tensor

from anynorm.surgery.channels.meeting import met, over
from anynorm.surgery.channels.operators import Operator

__all__ = ["attention", "product"]


def product(op: Operator) -> Tensor:
    """A product of matrices that are both computed, such as queries and keys, for each head."""
    return _for_each(op, met(op, *(_matrices(op, op.tensor(op.arg(at))) for at in range(2))))


def attention(op: Operator) -> Tensor:
    """Scaled dot product attention: each head is one channel."""
    query, key, value, mask = (_matrices(op, op.tensor(op.arg(at))) for at in range(4))
    repeats = query.shape[-1] // key.shape[-1] if op.arg(7, False) else 1
    key, value = (labels.repeat_interleave(repeats, -1) for labels in (key, value))
    return _for_each(op, met(op, met(op, met(op, query, key), value), mask))


def _matrices(op: Operator, labels: Tensor) -> Tensor:
    """The channel of each matrix in a tensor: all of its values go together."""
    axes = range(-min(2, labels.dim()), 0)
    across = over(op, labels, axes, f"{op.name} over channels")
    return across.flatten(axes.start).select(-1, 0) if axes else across


def _for_each(op: Operator, matrices: Tensor) -> Tensor:
    """The output's labels, by those of its matrices."""
    behind = [1] * (len(op.shape) - matrices.dim())
    return matrices.reshape(*matrices.shape, *behind).expand(op.shape)
