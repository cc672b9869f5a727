"""How far statistics of so many samples may be off, and how many samples they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anynorm.surgery.sample_units import Units

__all__ = ["TARGET", "Noise", "Part", "Samples", "noise_of", "verdict"]

TARGET = 0.05  # σ: the noise that hardly matters, also after many layers

_UNITS = 32  # show the noise of a channel to 13%, and that of a layer better
_MERGED = 128  # samples that are merged at a time

Part = tuple[Tensor, Tensor, Tensor]  # count, mean and squared deviations of samples


class Samples:
    """Units of samples that arrive in any order; several parts are merged at once.

    >>> samples, x = Samples(), torch.zeros(4, 3, dtype=torch.float64)
    >>> samples.add(4, (x + 1, x, x))
    >>> samples.add(0, (x + 1, x, x))
    >>> samples.units().samples
    8
    """

    def __init__(self) -> None:
        self._units, self._waiting, self._number = Units(_UNITS), list[tuple[int, Part]](), 0

    def add(self, start: int, part: Part) -> None:
        """Add count, mean and squares of consecutive samples, the first of which is `start`."""
        counts, means, squares = part
        self._waiting.append((start, (counts.expand_as(means), means, squares)))
        self._number += len(means)
        if self._number > _MERGED:
            self.units()

    def units(self) -> Units:
        """The units of all samples."""
        runs: list[tuple[int, list[Part]]] = []
        end = None
        for start, part in sorted(self._waiting, key=lambda one: one[0]):
            if start != end:
                runs.append((start, []))
            runs[-1][1].append(part)
            end = start + len(part[1])
        for start, parts in runs:
            self._units.add(start, *map(torch.cat, zip(*parts, strict=True)))
        self._waiting, self._number = [], 0
        return self._units


@dataclass(frozen=True)
class Noise:
    """The noise of a layer's new statistics, and their change.

    Both are root mean squares over channels of how far the outputs of the layer are off, in σ: an
    error δ of the mean counts as δ/σ, one of the variance as half of that of log σ².

    Args:
        layer: its name.
        samples: from how many samples the statistics are.
        noise: the standard error; infinite if a single sample says nothing about it.
        change: how far the new statistics are from the old ones.
    """

    layer: str
    samples: int
    noise: float
    change: float

    @property
    def needed(self) -> float:
        """The number of samples that bring the noise to the target: it falls as 1/√n."""
        return self.samples * (self.noise / TARGET) ** 2


def noise_of(
    layer: str, units: Units, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], eps: float
) -> Noise:
    """The noise of a layer's statistics, from how its samples differ.

    The values of one sample depend on each other, so samples are what counts.

    Args:
        layer: its name.
        units: its samples.
        old, new: mean and variance before and after.
        eps: ε of the layer.

    Returns:
        Noise and change.

    Reference:
        The delete-one jackknife (Quenouille 1956), in its linear form.
    """
    variance = new[1].flatten().cpu() + eps
    of_mean, of_variance = units.influences()
    count = len(of_mean)
    mean_error, variance_error = (
        influence.square().sum(0) * count / max(count - 1, 1) * Units.clustering(influence)
        for influence in (of_mean, of_variance)
    )
    squares = mean_error / variance + (variance_error / variance.square()) / 4
    away = (new[0] - old[0]).flatten().cpu().square() / variance
    ratio = (variance / (old[1].flatten().cpu() + eps)).log() / 2
    change = (away + ratio.square()).mean().sqrt().nan_to_num(nan=math.inf)
    noise = float(squares.mean().sqrt()) if count > 1 else math.inf
    return Noise(layer, units.samples, noise, float(change))


def verdict(found: Sequence[Noise]) -> tuple[str, str]:
    """What the receipt says of the number of samples, and a warning if they are too few.

    The new statistics have an expected squared error of noise², the old ones one of change² −
    noise², since the noise is part of the change.  If the first sum over the layers is larger, the
    old statistics are expected to be better.
    """
    if not found:
        return "", ""
    worst = max(found, key=lambda one: one.needed)
    if math.isinf(worst.noise):
        return f"{worst.samples}: one sample does not show how much samples differ", ""
    text = f"{worst.samples}; the noise of the statistics is up to {worst.noise:.2g} σ "
    text += f"({worst.layer!r})"
    if worst.noise <= TARGET:
        return text, ""
    needed = f"about {_rounded(worst.needed)} samples bring it to {TARGET} σ"
    noise, change = sum(one.noise**2 for one in found), sum(one.change**2 for one in found)
    if change >= 2 * noise:
        return f"{text}; {needed}", ""
    return f"{text}; {needed}", (
        f"{worst.samples} samples are too few: the new statistics differ from the old ones by "
        f"{_mean(change, found):.2g} σ, and {_mean(noise, found):.2g} σ of that is noise, so the "
        f"old ones are expected to be better; {needed}"
    )


def _mean(squares: float, found: Sequence[Noise]) -> float:
    return math.sqrt(squares / len(found))


def _rounded(number: float) -> int:
    """A number with two digits, rounded up."""
    unit: int = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return math.ceil(number / unit) * unit
