"""What is measured of one layer while batches pass: moments, sizes, the order of calls."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch import distributed as dist

from anynorm.doctor.geometry import group_values, rows_of
from anynorm.doctor.magnitudes import Magnitudes
from anynorm.ops.merge import merge
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.sample_units import Units
from anynorm.surgery.streaming_stats import Pooled, of_samples, rows_by_sample

__all__ = ["Moments", "Record"]

CALLS = 8  # calls of one layer in a forward pass that are told apart


@dataclass(eq=False)
class Moments:
    """The moments of inputs over all values, of shape (C,), and over units of samples."""

    values: Pooled = field(default_factory=Pooled)
    units: Units = field(default_factory=Units)

    def add(self, start: int, counts: Tensor, means: Tensor, squares: Tensor) -> None:
        """Merge consecutive samples, the first of which has the number `start`."""
        self.values.add(*merge(counts, means, squares))
        self.units.add(start, counts, means, squares)


@dataclass(eq=False)
class Record:
    """What was seen of one normalization layer: of its inputs in all, and of each call's."""

    norm: Normalizer
    inputs: Moments = field(default_factory=Moments)
    outputs: Pooled = field(default_factory=Pooled)
    magnitudes: Magnitudes = field(init=False)
    calls: list[Moments] = field(default_factory=list)
    brief: bool = False  # only the moments over all values are wanted, as in a trial
    forwards: int = 0
    order: int = sys.maxsize
    values: int = 0  # that share a μ and σ of the largest input's
    fewest: int = sys.maxsize
    shape: tuple[int, ...] = ()
    _start: int = 0  # the number of this forward pass's first sample
    _next: int = 0

    def __post_init__(self) -> None:
        self.magnitudes = Magnitudes(self.norm)

    def see(
        self,
        x: Tensor,
        call: int,
        order: int,
        mask: Tensor | None = None,
        *,
        samples: int = 0,
        axis: int = 0,
        again: bool = False,
    ) -> None:
        """Take the input of the call with that number in this forward pass.

        Args:
            x: the input.
            call: its number in this forward pass.
            order: its number among the calls of all layers.
            mask: which of its values count.
            samples: how many samples the batch has.  An input with several rows for each has the
                rows of a sample together, or those of all samples in turn where `axis` is 1.
            axis: the axis of the batch that has the samples.
            again: whether the samples are those of the forward pass before, as with another draw
                of dropout.
        """
        rows = rows_of(self.norm, x)
        kept = None if mask is None else self._kept(mask, x)
        self._take(rows, kept, call, samples, axis, again)
        if not self.brief and self.finite:
            self.magnitudes.add(x if mask is None else torch.where(mask > 0, x, 0))
        self.forwards += call == 0
        self.order = min(self.order, order)
        self._size(x, mask)

    def _take(
        self, rows: Tensor, kept: Tensor | None, call: int, samples: int, axis: int, again: bool
    ) -> None:
        rows = rows_by_sample(rows, samples, axis)
        kept = None if kept is None else rows_by_sample(kept, samples, axis)
        part = of_samples(rows, kept)
        if self.brief:
            self.inputs.values.add(*merge(*part))
            return
        if call == 0 and not again:
            self._start = self._next
        self._next = max(self._next, self._start + len(part[1]))
        if call == len(self.calls) < CALLS:
            self._another_call()
        self.inputs.add(self._start, *part)
        if call < len(self.calls) and self.calls[call] is not self.inputs:
            self.calls[call].add(self._start, *part)

    def _another_call(self) -> None:
        """The first call is all inputs until there is a second one."""
        if len(self.calls) == 1:
            self.calls[0] = copy.deepcopy(self.inputs)
        self.calls.append(Moments() if self.calls else self.inputs)

    def _size(self, x: Tensor, mask: Tensor | None) -> None:
        fewest, most = group_values(self.norm, x, mask)
        if most > self.values:
            self.values, self.shape = most, tuple(x.shape)
        self.fewest = min(self.fewest, fewest)

    def see_output(self, y: Tensor, mask: Tensor | None = None) -> None:
        """Take an output."""
        kept = None if mask is None else self._kept(mask, y)
        self.outputs.add(*merge(*of_samples(rows_of(self.norm, y), kept)))

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
