"""The new statistics of one layer, in the making during one pass over the batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from anynorm.errors import AnynormError
from anynorm.surgery.call_args import input_of, mask_of
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.recalibrating.changes import moved, over_sigma, relative
from anynorm.surgery.recalibrating.lockstep import Trip
from anynorm.surgery.recalibrating.noise import Part, Samples
from anynorm.surgery.sample_units import Units
from anynorm.surgery.streaming_stats import (
    Pooled,
    anyone,
    averaged,
    double,
    in_group,
    of_samples,
    rows_by_sample,
)

__all__ = ["Layer", "layer_of", "start_anew"]


def layer_of(norm: Normalizer, *, settled: bool) -> Layer:
    """The new statistics of `norm`: pooled for mean and variance of the batch, else averaged."""
    return (_PooledLayer if norm.spec.pools_batch else _AveragedLayer)(norm, settled)


@dataclass(frozen=True)
class _Call:
    """A call of a layer, and of which batch it is."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mask: Tensor | None
    trip: Trip


class Layer:
    """The new statistics of one layer.

    A layer that is `settled` normalizes by its stored statistics, which are compared with the new
    ones at the end.  Any other one gets those of all inputs that have arrived, each time that
    batches go on from it.
    """

    def __init__(self, norm: Normalizer, settled: bool) -> None:
        self.norm, self.layer, self.settled = norm, norm.layer, settled
        self.seen, self.order, self.releases = 0, -1, 0
        self.reached = False  # by a batch of any process
        self._before = self._kept()

    @property
    def certain(self) -> bool:
        """Whether all inputs had arrived when the first batches went on."""
        return not self.settled and self.releases == 1

    def take(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], trip: Trip, before: int
    ) -> Part | None:
        """Take the arguments of a call; its batch has met so many layers `before`.

        The largest of these numbers orders the layers: a batch may skip some of them.  Returns
        what was measured of the samples, if that is how the layer takes its statistics.
        """
        self.order, self.seen = max(self.order, before), self.seen + 1
        call = _Call(args, kwargs, mask_of(self.layer, args, kwargs), trip)
        return self._take(input_of(args, kwargs), call)

    def release(self, group: dist.ProcessGroup | None) -> None:
        """Store the statistics of all inputs that have arrived, so that batches can go on."""
        self.releases += 1
        self.write(group)

    def write(self, group: dist.ProcessGroup | None) -> None:
        """Store the new statistics, the same on all processes."""
        raise NotImplementedError

    def end(self) -> None:
        """Store what is known at the end only."""

    def moved(self, magnitude: float) -> float:
        """How far the statistics moved, in units of σ and log σ²; 0 if no further than roundings.

        `magnitude` is the largest of the layers before.
        """
        raise NotImplementedError

    @property
    def magnitude(self) -> float:
        """The root mean square over σ of what reaches the layer."""
        return 1.0

    @property
    def units(self) -> Units | None:
        """The samples that reached the layer in this process; None if they were not kept apart."""
        return None

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """The mean and variance, in float64."""
        return _pair(self._kept())

    @property
    def before(self) -> tuple[Tensor, Tensor]:
        """The mean and variance before the pass, in float64."""
        return _pair(self._before)

    def _kept(self) -> list[Tensor]:
        """The statistics, in their own type."""
        return [b.clone() for b in self.layer.buffers(recurse=False) if b.is_floating_point()]

    def _take(self, x: Tensor, call: _Call) -> Part | None:
        raise NotImplementedError


class _PooledLayer(Layer):
    """Batch norm: the exact moments of all values that count."""

    def __init__(self, norm: Normalizer, settled: bool) -> None:
        super().__init__(norm, settled)
        self._samples = Samples()

    def _take(self, x: Tensor, call: _Call) -> Part | None:
        if not x.numel():
            return None
        batched = x if x.dim() > 1 else x[None]
        rows, kept = self._rows(batched, call.trip), None
        if call.mask is not None:
            kept = self._rows(call.mask.expand_as(batched), call.trip)
        part = of_samples(rows, kept)
        self._samples.add(call.trip.start, part)
        return part

    def _rows(self, x: Tensor, trip: Trip) -> Tensor:
        """(samples, positions, channels), with all axes of the running statistics as channels."""
        first, width = self.norm.channel_axis(x.dim()), self.layer.running_mean.dim()
        flat = x.flatten(first, first + width - 1).movedim(first, -1)
        return rows_by_sample(flat.reshape(len(flat), -1, flat.shape[-1]), trip.samples)

    def write(self, group: dist.ProcessGroup | None) -> None:
        units = self._samples.units()
        pooled = Pooled() if units.counts is None else Pooled(*units.merged())
        if in_group():
            pooled = pooled.over_ranks(group, self.layer.running_mean.numel())
        self.reached = pooled.count > 0
        if not self.reached:
            return
        self._check(pooled)
        running = self.layer.running_mean, self.layer.running_var
        new = pooled.beside(*(statistic.flatten() for statistic in running))
        for statistic, values in zip(running, new, strict=True):
            statistic.copy_(values.reshape(statistic.shape))

    def end(self) -> None:
        if self.reached and self.layer.num_batches_tracked is not None:
            self.layer.num_batches_tracked.fill_(max(self.seen, 1))

    def moved(self, magnitude: float) -> float:
        epsilon = torch.finfo(self.layer.running_mean.dtype).eps
        found = moved(self.before, self.moments, self.layer.eps, epsilon, magnitude)
        return float(found.max())

    @property
    def magnitude(self) -> float:
        return float(over_sigma(*self.moments, self.layer.eps).square().mean().sqrt())

    @property
    def units(self) -> Units | None:
        return self._samples.units() if self.seen else None

    def _check(self, pooled: Pooled) -> None:
        if not bool(pooled.mean.isfinite().all()):
            raise AnynormError(
                f"what reaches {self.norm.name!r} is not finite, so it has no statistics. Look for "
                "NaN or infinite values in the batches and in the weights before it."
            )


class _AveragedLayer(Layer):
    """Any other statistic: the average of the batches', weighted by what counts in them."""

    def __init__(self, norm: Normalizer, settled: bool) -> None:
        super().__init__(norm, settled)
        self._samples = 0.0
        self._average: list[Tensor] = []  # of the batches so far: all buffers of the layer

    def _take(self, x: Tensor, call: _Call) -> None:
        size = float(len(x))
        if call.mask is not None and len(x):
            size *= call.mask.double().mean().item()
        in_use, momentum = self._buffers(), self.layer.momentum
        if self._average:
            self._fill(self._average)
        else:
            start_anew(self.layer)
        self._samples += size
        # The running average with this momentum is the average weighted by the batches' sizes.
        self.layer.momentum = size / self._samples if size else 0.0
        self.layer.training = True
        try:
            self.layer.forward(*call.args, **call.kwargs)
            self._average = self._buffers()
        finally:
            self.layer.training, self.layer.momentum = False, momentum
            self._fill(in_use)

    def _buffers(self) -> list[Tensor]:
        return [buffer.clone() for buffer in self.layer.buffers(recurse=False)]

    def _fill(self, values: list[Tensor]) -> None:
        for buffer, value in zip(self.layer.buffers(recurse=False), values, strict=True):
            buffer.copy_(value)

    def write(self, group: dist.ProcessGroup | None) -> None:
        self.reached = anyone(self.seen > 0, group)
        if self._average:
            self._fill(self._average)
        if in_group():
            for buffer in self.layer.buffers(recurse=False):
                if buffer.is_floating_point():
                    buffer.copy_(averaged(buffer, self._samples, group))

    def moved(self, magnitude: float) -> float:
        pairs = zip(self._before, self._kept(), strict=True)
        return max(relative(old, new, magnitude) for old, new in pairs)


def _pair(statistics: list[Tensor]) -> tuple[Tensor, Tensor]:
    mean, variance = map(double, statistics[:2])
    return mean, variance


@torch.no_grad()
def start_anew(layer: nn.Module) -> None:
    """Set running statistics to those of a fresh layer, with or without a count of batches."""
    for name, statistic in layer.named_buffers(recurse=False):
        if name == "running_cov":
            statistic.copy_(torch.eye(statistic.shape[-1]))
        elif name.startswith("running_") or name == "num_batches_tracked":
            statistic.fill_(name == "running_var")
