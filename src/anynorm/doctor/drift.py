"""Running statistics against the statistics of the layers' inputs: the tests 1 and 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anynorm.doctor.deviation import LEVEL, Deviation, off
from anynorm.doctor.geometry import double, epsilon
from anynorm.doctor.record import Record

__all__ = [
    "MEAN",
    "VARIANCE",
    "Drift",
    "drifts",
    "measurable",
    "relative",
    "tested",
    "unseen",
]

MEAN = 0.1  # in σ
VARIANCE = math.log(1.25)
ERROR = 5  # times the threshold is an error
SHIFT, FACTOR = 0.5, 2.0  # if such deviations could not be found, the layer is undecided
_OUTSIDE = 0.22  # of two variances with the ratio 1.25, beside their root mean square
_ERRORS = 3.5  # an error must be this many standard errors beyond the threshold
_BATCH = 8  # the assumed batch size of training; larger batches have less noise
_MOMENTUM = 0.1  # the assumed momentum of frozen layers, which have none


@dataclass(frozen=True)
class Drift:
    """How far one layer's running statistics are off: by channel, and which channels are."""

    record: Record
    mean: Tensor  # in σ
    variance: Tensor  # log of the ratio running / population
    mean_off: Tensor
    variance_off: Tensor
    mean_sure: Tensor  # which of these channels are off so far that it is an error
    variance_sure: Tensor
    shift: float  # the smallest shift of all means that would be found, in σ
    factor: float  # the smallest factor of all variances that would be found

    @property
    def off(self) -> Tensor:
        """Which channels are off, in the mean or the variance."""
        return self.mean_off | self.variance_off

    @property
    def moved(self) -> tuple[float, float]:
        """By how much the channels that are off move the layer's outputs, for mean and variance.

        In σ, the root mean square over all channels.
        """
        mean = torch.where(self.mean_off, self.mean, 0.0)
        variance = torch.where(self.variance_off, (self.variance / 2).expm1(), 0.0)
        return float(mean.square().mean().sqrt()), float(variance.square().mean().sqrt())


def measurable(records: Sequence[Record]) -> list[Record]:
    """The layers with running statistics and finite inputs."""
    return [r for r in records if tested(r) and r.seen and r.finite and _has_finite(r)]


def tested(record: Record) -> bool:
    """Whether the layer has a running mean and variance of its input, moving or frozen."""
    norm = record.norm
    return norm.fixed and norm.spec.estimates_population and norm.layer.running_mean.dim() == 1


def _has_finite(record: Record) -> bool:
    module = record.norm.layer
    statistics = (module.running_mean, module.running_var)
    return all(bool(s.isfinite().all()) for s in statistics) and bool((statistics[1] >= 0).all())


def drifts(records: Sequence[Record]) -> list[Drift]:
    """Test every layer and every channel, all as one family."""
    measured = [_Measured.of(record) for record in measurable(records)]
    means = off([m.by_mean for m in measured])
    variances = off([m.by_variance for m in measured])
    level = LEVEL / max(len(measured), 1)
    return [
        _drift(one, mean, variance, level)
        for one, mean, variance in zip(measured, means, variances, strict=True)
    ]


@dataclass(frozen=True)
class _Measured:
    """The differences of one layer, for messages and for the tests."""

    record: Record
    mean: Tensor  # in σ
    variance: Tensor  # log ratio
    by_mean: Deviation
    by_variance: Deviation

    @classmethod
    def of(cls, record: Record) -> _Measured:
        module, inputs = record.norm.layer, record.inputs
        ε = epsilon(module)
        mean, variance = inputs.values.mean, inputs.values.variance + ε
        running = double(module.running_mean).cpu(), double(module.running_var).cpu() + ε
        larger = torch.maximum(variance, running[1])
        of_mean, of_variance = inputs.units.influences()
        more = inputs.units.samples / _behind(record)
        away = running[0] - mean
        # The noise is relative to the data's own σ, without ε: if rare large values are missing,
        # both are too small.
        alone = inputs.values.variance
        by_mean = Deviation.of(away / larger.sqrt(), relative(of_mean, alone.sqrt()), more)
        middle = ((variance.square() + running[1].square()) / 2).sqrt()
        by_variance = Deviation.of(
            (running[1] - variance) / middle, relative(of_variance, alone), more, least=True
        )
        return cls(
            record, away / variance.sqrt(), (running[1] / variance).log(), by_mean, by_variance
        )


def relative(influence: Tensor, scale: Tensor) -> Tensor:
    """`influence` divided by the `scale` of each channel; 0 where the scale is 0."""
    return torch.where(scale > 0, influence / scale, 0.0)


def _behind(record: Record) -> float:
    """The smallest number of samples that the running statistics may represent.

    An exponential average is as accurate as (2 - m) / m batches.  The batch size of training is
    unknown, and may differ from that of the given batches: 8 samples is on the safe side.
    """
    norm = record.norm
    # If statistics do not move any more, the layer does not say how they were computed.
    momentum = norm.layer.momentum if norm.moves else _MOMENTUM
    if momentum is None:
        return _BATCH * max(norm.batches, 1)
    return _BATCH * (2 - momentum) / max(momentum, 1e-9)


def _drift(
    one: _Measured, mean: tuple[Tensor, Tensor], variance: tuple[Tensor, Tensor], level: float
) -> Drift:
    seen = one.by_variance.seen(level)
    return Drift(
        one.record,
        one.mean,
        one.variance,
        mean[0] & (one.mean.abs() > MEAN),
        variance[0] & (one.variance.abs() > VARIANCE),
        mean[1] & (one.mean.abs() >= ERROR * MEAN) & _beyond(one.by_mean, MEAN),
        variance[1] & (one.variance.abs() >= ERROR * VARIANCE) & _beyond(one.by_variance, _OUTSIDE),
        one.by_mean.seen(level),
        _factor(seen),
    )


def _factor(difference: float) -> float:
    """The ratio of two variances, from their difference divided by their root mean square."""
    square = difference**2
    return (2 + difference * math.sqrt(4 - square)) / (2 - square) if square < 2 else math.inf


def _beyond(found: Deviation, threshold: float) -> Tensor:
    """Whether the difference is beyond the threshold even if noise made it larger."""
    return found.difference.abs() - _ERRORS * found.error.sqrt() > threshold


def unseen(drift: Drift) -> tuple[str, str]:
    """Which deviations of mean and of variance the data cannot show, in words; "" for none."""
    record = drift.record
    samples, batches = record.inputs.units.samples, record.forwards
    given = f"{samples} sample{'s' * (samples > 1)} in {batches} batch{'es' * (batches > 1)}"

    def words(kind: str, least: float, shown: str, wanted: float) -> str:
        if least <= wanted:
            return ""
        if math.isinf(least):
            return f"{given}: no {kind} can be distinguished from noise here"
        return f"{given}: {kind}s below {shown} in all channels cannot be detected here"

    return (
        words("shift", drift.shift, f"{drift.shift:.2g} σ", SHIFT),
        words("factor", drift.factor, f"{drift.factor:.3g}", FACTOR),
    )
