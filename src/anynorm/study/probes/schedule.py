"""The steps at which each probe is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["EARLY", "Schedule"]

# "Early in training", in steps: where published effects of normalization are measured.
EARLY = 100
# A run of this length or more has the full number of measurements; shorter ones in proportion.
_FULL = 200
_LANDSCAPES, _SHIFTS, _UNITS, _LATE = 16, 8, 20, 3

Weights = Mapping[int, int]
Stratum = Sequence[int]


@dataclass(frozen=True)
class Schedule:
    """The steps, counted from 0, at which each probe is due; they depend on run length and seed.

    `landscape`, `shift` and `flow` give each step its weight. The steps from 0 to 100 are cut
    into equal strata. One step of each stratum is drawn at random, and its weight is the number
    of steps in the stratum, so that the weighted mean is an unbiased estimate of the mean over
    all these steps. Later steps have the weight 0. `units` are sampled evenly, so that
    successive samples are the same number of steps apart.

    >>> len(Schedule.of(300, seed=0, dense=True).flow)
    54
    >>> sum(Schedule.of(300, seed=0).landscape.values())
    101
    """

    landscape: Weights
    shift: Weights
    flow: Weights
    units: tuple[int, ...]

    @classmethod
    def of(cls, steps: int, seed: int, *, dense: bool = False) -> Schedule:
        """Return the schedule of a run of `steps` steps.

        With `dense` the landscape is probed at half of the early steps, which takes 300 gradients.
        """
        share = min(1.0, steps / _FULL)
        generator = np.random.default_rng(seed)
        first = range(min(EARLY + 1, steps))
        late = dict.fromkeys(_even(len(first), steps - 1, round(_LATE * share)), 0)
        count = (len(first) + 1) // 2 if dense else round(_LANDSCAPES * share)
        landscape = _draw(_cut(first, count), generator)
        # The shift probe needs the landscape's gradient, so its steps are drawn from these.
        groups = _cut(sorted(landscape), round(_SHIFTS * share))
        shift = _draw(groups, generator, landscape)
        return cls(
            landscape={**landscape, **late},
            shift={**shift, **late},
            flow={**landscape, **late},
            units=tuple(_even(0, steps - 1, round(_UNITS * share))),
        )


def _even(first: int, last: int, count: int) -> list[int]:
    """`count` steps from `first` to `last`, at least the last; none if the range is empty."""
    if first > last:
        return []
    gaps = max(count - 1, 1)
    return sorted({first + (last - first) * i // gaps for i in range(gaps + 1)})


def _cut(steps: Stratum, count: int) -> list[Stratum]:
    """Split `steps` into `count` parts whose sizes differ by at most one."""
    count = min(max(count, 1), len(steps))
    ends = [len(steps) * part // count for part in range(count + 1)]
    return [steps[low:high] for low, high in pairwise(ends)]


def _draw(
    strata: Sequence[Stratum], generator: np.random.Generator, sizes: Weights | None = None
) -> dict[int, int]:
    """Draw one step of each stratum, with the number of training steps for which it stands."""
    return {
        int(generator.choice(np.asarray(stratum))): sum(
            1 if sizes is None else sizes[step] for step in stratum
        )
        for stratum in strata
    }
