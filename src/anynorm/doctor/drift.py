"""Running statistics against those of what reaches the layers: the tests 1 and 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anynorm.doctor.geometry import double
from anynorm.doctor.record import Record
from anynorm.doctor.significance import discoveries, p_values

__all__ = ["MEAN", "VARIANCE", "Drift", "Q", "drifts", "measurable", "tested"]

Q = 0.01  # the false discovery rate over all channels of a model
MEAN = 0.1  # in σ
VARIANCE = math.log(1.25)
_FAMILIES = ("batch", "ghost")  # whose running variance is that of the values


@dataclass(frozen=True)
class Drift:
    """How far one layer's running statistics are off: by channel, and which channels are."""

    record: Record
    mean: Tensor  # in σ
    variance: Tensor  # log of the ratio running / population
    mean_off: Tensor
    variance_off: Tensor

    @property
    def moved(self) -> tuple[float, float]:
        """By how much the channels that are off move the layer's outputs, for mean and variance.

        In σ, the root mean square over all channels.
        """
        mean = torch.where(self.mean_off, self.mean, 0.0)
        variance = torch.where(self.variance_off, (self.variance / 2).expm1(), 0.0)
        return float(mean.square().mean().sqrt()), float(variance.square().mean().sqrt())


def measurable(records: Sequence[Record]) -> list[Record]:
    """The layers with running statistics that finite values reached."""
    return [r for r in records if tested(r) and r.seen and r.finite and _has_finite(r)]


def tested(record: Record) -> bool:
    """Whether the layer keeps the mean and the variance of its input."""
    return record.norm.tracks and record.norm.family in _FAMILIES


def _has_finite(record: Record) -> bool:
    module = record.norm.module
    statistics = (module.running_mean, module.running_var)
    return all(bool(s.isfinite().all()) for s in statistics) and bool((statistics[1] >= 0).all())


def drifts(records: Sequence[Record]) -> list[Drift]:
    """Test every channel of every layer, at one false discovery rate over all of them."""
    measured_on = measurable(records)
    if not measured_on:
        return []
    measured = [_measured(record) for record in measured_on]
    found = [
        discoveries(torch.cat([m[index] for m in measured]), Q).split(
            [len(m[index]) for m in measured]
        )
        for index in (1, 3)
    ]
    return [
        Drift(
            record,
            mean := effects[0],
            variance := effects[2],
            by_mean & (mean.abs() > MEAN),
            by_variance & (variance.abs() > VARIANCE),
        )
        for record, effects, by_mean, by_variance in zip(measured_on, measured, *found, strict=True)
    ]


def _measured(record: Record) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The effect on the mean and its p, the effect on the variance and its p."""
    module, inputs = record.norm.module, record.inputs
    mean, variance = inputs.values.mean, inputs.values.variance + module.eps
    running = double(module.running_mean).cpu(), double(module.running_var).cpu()
    share = _share(record)
    noise, freedom = inputs.noise(inputs.means, inputs.batch_means)
    by_mean = (running[0] - mean) / variance.sqrt()
    p_mean = p_values(by_mean, share * noise / variance, freedom)
    noise, freedom = inputs.noise(inputs.spreads, inputs.batch_variances)
    by_variance = ((running[1] + module.eps) / variance).log()
    p_variance = p_values(by_variance, share * noise / variance.square(), freedom)
    return by_mean, p_mean, by_variance, p_variance


def _share(record: Record) -> float:
    """The noise of running minus measured statistics, as a multiple of one batch's."""
    momentum = record.norm.module.momentum
    tracked = max(int(record.norm.module.num_batches_tracked), 1)
    running = 1 / tracked if momentum is None else momentum / (2 - momentum)
    return float(running) + 1 / max(record.forwards, 1)
