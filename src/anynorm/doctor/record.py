"""What is measured of one layer while batches pass: moments, sizes, the order of calls."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch import distributed as dist

from anynorm.doctor.geometry import group_values, rows_of
from anynorm.surgery.moments import Pooled
from anynorm.surgery.normalizers import Normalizer

__all__ = ["Moments", "Record"]

CALLS = 8  # calls of one layer in a forward pass that are told apart


@dataclass(frozen=True)
class _Part:
    """One input: its count, mean and squares, and each sample's mean and mean square deviation."""

    count: int
    mean: Tensor
    squares: Tensor
    means: Tensor
    spreads: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> _Part:
        means = rows.mean(dim=1)
        mean = means.mean(dim=0)
        spreads = (rows - mean).square().mean(dim=1)
        squares = spreads.sum(dim=0) * rows.shape[1]
        count = rows.shape[0] * rows.shape[1]
        return cls(count, mean.cpu(), squares.cpu(), means.cpu(), spreads.cpu())


@dataclass(eq=False)
class Moments:
    """The moments of inputs, of shape (C,), and how much they vary by sample and by batch."""

    values: Pooled = field(default_factory=Pooled)
    means: Pooled = field(default_factory=Pooled)
    spreads: Pooled = field(default_factory=Pooled)
    batch_means: Pooled = field(default_factory=Pooled)
    batch_variances: Pooled = field(default_factory=Pooled)
    samples: int = 0  # of a full batch

    def add(self, part: _Part) -> None:
        """Merge one input."""
        self.values.add(part.count, part.mean, part.squares)
        self.means.merge(part.means)
        self.spreads.merge(part.spreads)
        samples = len(part.means)
        self.samples = self.samples or samples
        if samples == self.samples:  # the moments of a smaller last batch vary more
            self.batch_means.merge(part.mean[None])
            self.batch_variances.merge(part.squares[None] / max(part.count - 1, 1))

    def noise(self, single: Pooled, batched: Pooled) -> tuple[Tensor, int]:
        """The variance of a batch's statistic, and the degrees of freedom that it is known with.

        From the batches and, since they may be few, from their samples; the larger of the two.
        """
        by_sample = single.variance / max(self.samples, 1)
        if batched.count < 2 or not bool((batched.variance > by_sample).any()):
            return by_sample, max(single.count - 1, 1)
        return torch.maximum(batched.variance, by_sample), batched.count - 1


@dataclass(eq=False)
class Record:
    """What was seen of one normalization layer: of its inputs in all, and of each call's."""

    norm: Normalizer
    inputs: Moments = field(default_factory=Moments)
    outputs: Pooled = field(default_factory=Pooled)
    calls: list[Moments] = field(default_factory=list)
    forwards: int = 0
    order: int = sys.maxsize
    values: int = 0  # that share a μ and σ of the largest input's
    fewest: int = sys.maxsize
    shape: tuple[int, ...] = ()

    def see(self, x: Tensor, call: int, order: int) -> None:
        """Take the input of the call with that number in this forward pass."""
        part = _Part.of(rows_of(self.norm, x))
        self.inputs.add(part)
        if call == len(self.calls) < CALLS:
            self.calls.append(Moments())
        if call < CALLS:
            self.calls[call].add(part)
        self.forwards += call == 0
        self.order = min(self.order, order)
        self._size(x)

    def _size(self, x: Tensor) -> None:
        values = group_values(self.norm, x)
        if values > self.values:
            self.values, self.shape = values, tuple(x.shape)
        self.fewest = min(self.fewest, values)

    def see_output(self, y: Tensor) -> None:
        """Take an output."""
        self.outputs.merge(rows_of(self.norm, y).flatten(0, 1))

    def over_ranks(self, group: dist.ProcessGroup | None) -> None:
        """Make the moments of the inputs those of all processes."""
        self.inputs.values = self.inputs.values.over_ranks(group, self.norm.channels)

    @property
    def seen(self) -> bool:
        """Whether more than one value of each channel reached the layer."""
        return self.inputs.values.count > 1

    @property
    def finite(self) -> bool:
        """Whether what reached the layer was finite."""
        return bool(self.inputs.values.mean.isfinite().all())
