"""The first batches of an iterable, kept to try repairs on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from anynorm.surgery.batches import Batch

__all__ = ["Kept"]

MOST = 32  # batches
BYTES = 512 * 2**20


class Kept:
    """An iterable of batches that keeps the first ones, so that no source is iterated twice.

    Example:
        >>> kept = Kept([1, 2])
        >>> list(kept), kept.batches
        ([1, 2], [1, 2])
    """

    def __init__(self, source: Iterable[Batch]) -> None:
        self.source = source
        self.batches: list[Batch] = []
        self._bytes = 0

    def __iter__(self) -> Iterator[Batch]:
        return self._through(iter(self.source))

    def _through(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._bytes += _size(batch)
            if len(self.batches) < MOST and (self._bytes <= BYTES or not self.batches):
                self.batches.append(batch)
            yield batch


def _size(batch: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(batch) if isinstance(t, Tensor))
