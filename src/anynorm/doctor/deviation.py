"""How far one statistic of a layer is off in all channels, and which deviation could be found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anynorm.doctor.significance import discoveries, f_bound, f_tail, independent, p_values
from anynorm.surgery.sample_units import Units

__all__ = ["LEVEL", "Deviation", "Q", "off"]

Q = 0.01  # at most this share of healthy models has a finding
LEVEL = Q / 4  # there are four tests: of mean and variance, by channel and together
SURE = 0.1  # the part of the level for an error

LEAST = 4  # units; with fewer, their variance is too uncertain
_INSIDE = 0.05  # the false discovery rate of channels in a layer that is off
_LIKELY = 0.3  # p of one standard error
_CARRIED = 0.45  # if one unit has a larger share of the noise, nothing can be concluded
_POWER = 1.645  # the standard normal quantile for 95%


@dataclass(frozen=True)
class Deviation:
    """A difference in every channel, its noise, and how many channels are independent.

    The differences are bounded, because they are divided by the larger of the two compared values,
    or by their root mean square.  So if the data or the running statistics missed rare large
    values, a small difference does not look significant.
    """

    difference: Tensor
    error: Tensor  # the variance of the difference
    channels: float  # that vary independently
    freedom: int
    carried: float  # the share of one unit in the noise of a channel

    @classmethod
    def of(
        cls, difference: Tensor, influence: Tensor, more: float = 0.0, *, least: bool = False
    ) -> Deviation:
        """From the units' influence on the difference.

        Args:
            difference: of each channel.
            influence: of each unit on it, of shape (units, channels).
            more: additional noise, as a multiple of that of the data.
            least: whether each channel has at least the average noise: the noise of a variance
                comes from few large values, which a channel may have missed.

        Returns:
            The difference with its noise.

        Example:
            >>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
            >>> found = Deviation.of(torch.full((3,), 0.5), (x - x.mean(dim=0)) / 64)
            >>> found.together < 1e-6, round(found.seen(0.01), 1)
            (True, 0.4)
        """
        units = len(influence)
        squares = influence.square()
        noise = squares.sum(dim=0) * units / max(units - 1, 1)
        known = noise > 0
        middle = float(noise[known].mean()) if bool(known.any()) else 0.0
        share = squares.square().sum(dim=0)[known] / squares.sum(dim=0)[known].square()
        carried = float(share.mean()) if bool(known.any()) else 1 / units
        if least:
            noise = noise.clamp(min=middle) * _for_the_unseen(carried)
        noise = noise.where(noise > 0, middle)
        # A channel that is masked completely has no difference.
        difference = difference.nan_to_num(nan=0.0)
        error = noise * (Units.clustering(influence) + more)
        return cls(difference, error, independent(influence), units - 1, carried)

    @property
    def p(self) -> Tensor:
        """p for each channel.

        The degrees of freedom are the number of units from which the noise of a channel comes: if a
        few large values make the noise of a variance, it may be 7 of 64 samples.
        """
        if self.freedom < LEAST - 1:
            return torch.ones_like(self.difference)
        return p_values(self.difference, self.error, min(self.freedom, 1 / self.carried))

    @property
    def together(self) -> float:
        """p for all channels together, which is small if one is off, or all are slightly off."""
        differs = self.difference != 0
        if self.freedom < LEAST - 1 or not bool(differs.any()):
            return 1.0
        squares = float((self.difference[differs].square() / self.error[differs]).mean())
        return f_tail(squares, self.channels, self.freedom) if math.isfinite(squares) else 0.0

    def seen(self, level: float) -> float:
        """The difference in all channels that would be found at this level in 95% of cases."""
        if self.freedom < LEAST - 1:
            return math.inf
        bound = f_bound(level, self.channels, self.freedom)
        certainty = float((1 / self.error).mean())
        if math.isinf(certainty):
            return 0.0
        if math.isinf(bound) or not certainty:
            return math.inf
        # The mean of squares has mean 1 + λ and variance (2 + 4λ) / channels.
        low, high = 0.0, 1e9
        for _ in range(100):
            middle = (low + high) / 2
            least = 1 + middle - _POWER * math.sqrt((2 + 4 * middle) / self.channels)
            low, high = (middle, high) if least < bound else (low, middle)
        return math.sqrt(high / certainty)


def _for_the_unseen(share: float) -> float:
    """The factor by which noise is larger than it looks, if one unit has such a share of it.

    The share falls as 1 / n for values with a fourth moment, and hardly at all for values with rare
    large ones that the next sample may or may not have. The form was chosen by simulation: it is
    close to 1 for ReLU on 64 samples, and 2 or more for log-normal values on any number of samples.
    """
    closeness = (share / _CARRIED) ** 6
    return 1 / (1 - closeness) if closeness < 1 else math.inf


def off(found: Sequence[Deviation]) -> list[tuple[Tensor, Tensor]]:
    """Which channels of each deviation are off, and which with the certainty of an error.

    All deviations are one family: if none is real, one is found with probability `Q` / 2 at most.
    A deviation is off if its channels together are off, even if each is by little, or if a single
    channel is clearly off.
    """
    if not found:
        return []
    together = torch.tensor([one.together for one in found], dtype=torch.float64)
    channels = torch.cat([one.p for one in found])
    sizes = [len(one.p) for one in found]
    stages = []
    for level in (LEVEL, SURE * LEVEL):
        every = together * len(found) <= level
        single = discoveries(channels, level).split(sizes)
        stages.append(
            [
                alone | _inside(one.p) if bool(all_of_it) else alone
                for one, all_of_it, alone in zip(found, every, single, strict=True)
            ]
        )
    return list(zip(*stages, strict=True))


def _inside(p: Tensor) -> Tensor:
    """Which channels of a real deviation are off, even if no channel stands out."""
    found = discoveries(p, _INSIDE)
    return found if bool(found.any()) else p <= _LIKELY
