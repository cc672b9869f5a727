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
    """One input: its count, mean and squares, and each sample's mean and mean square deviation.

    The count is one for each channel where a mask leaves values out; `there` says then which
    samples have any.
    """

    count: int | Tensor
    mean: Tensor
    squares: Tensor
    means: Tensor
    spreads: Tensor
    there: Tensor | None = None

    @classmethod
    def of(cls, rows: Tensor) -> _Part:
        means = rows.mean(dim=1)
        mean = means.mean(dim=0)
        spreads = (rows - mean).square().mean(dim=1)
        squares = spreads.sum(dim=0) * rows.shape[1]
        count = rows.shape[0] * rows.shape[1]
        return cls(count, mean.cpu(), squares.cpu(), means.cpu(), spreads.cpu())

    @classmethod
    def counting(cls, rows: Tensor, kept: Tensor) -> _Part:
        """Of the values that are `kept`."""
        numbers = kept.sum(dim=1)
        sums, count = torch.where(kept, rows, 0).sum(dim=1), numbers.sum(dim=0)
        mean = sums.sum(dim=0) / count.clamp(min=1)
        away = torch.where(kept, rows - mean, 0).square().sum(dim=1)
        means, spreads = (t / numbers.clamp(min=1) for t in (sums, away))
        found = count, mean, away.sum(dim=0), means, spreads, numbers > 0
        return cls(*(t.cpu() for t in found))


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
        self.means.merge(part.means, part.there)
        self.spreads.merge(part.spreads, part.there)
        samples = len(part.means)
        self.samples = self.samples or samples
        if samples == self.samples:  # the moments of a smaller last batch vary more
            count = torch.as_tensor(part.count)
            there = None if part.there is None else count[None] > 0
            self.batch_means.merge(part.mean[None], there)
            self.batch_variances.merge(part.squares[None] / (count - 1).clamp(min=1), there)

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

    def see(self, x: Tensor, call: int, order: int, mask: Tensor | None = None) -> None:
        """Take the input of the call with that number in this forward pass."""
        rows = rows_of(self.norm, x)
        part = _Part.of(rows) if mask is None else _Part.counting(rows, self._kept(mask, x))
        self.inputs.add(part)
        if call == len(self.calls) < CALLS:
            self.calls.append(Moments())
        if call < CALLS:
            self.calls[call].add(part)
        self.forwards += call == 0
        self.order = min(self.order, order)
        self._size(x, mask)

    def _size(self, x: Tensor, mask: Tensor | None) -> None:
        fewest, most = group_values(self.norm, x, mask)
        if most > self.values:
            self.values, self.shape = most, tuple(x.shape)
        self.fewest = min(self.fewest, fewest)

    def see_output(self, y: Tensor, mask: Tensor | None = None) -> None:
        """Take an output."""
        kept = None if mask is None else self._kept(mask, y).flatten(0, 1)
        self.outputs.merge(rows_of(self.norm, y).flatten(0, 1), kept)

    def _kept(self, mask: Tensor, x: Tensor) -> Tensor:
        return rows_of(self.norm, mask.expand_as(x)) > 0

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
