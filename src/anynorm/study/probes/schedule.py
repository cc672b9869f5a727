"""Which probe is due at which step."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Schedule"]

# "Early in training", in steps: where published effects of normalization are measured.
_EARLY = 100
# From this length on a run is measured at the full number of points; shorter ones in proportion.
_FULL = 200


@dataclass(frozen=True)
class Schedule:
    """Steps, counted from 0, at which each probe is due: a function of the run's length alone.

    The landscape is probed mostly early, in the first 100 steps, and then sparsely to the end;
    covariate shift and gradient flow share some of those steps and with them
    the gradient. Units are sampled evenly, so that successive samples are the same number of
    steps apart.

    >>> Schedule.of(300).landscape
    (0, 11, 22, 33, 44, 55, 66, 77, 88, 100, 166, 232, 299)
    """

    landscape: tuple[int, ...]
    shift: tuple[int, ...]
    flow: tuple[int, ...]
    units: tuple[int, ...]

    @classmethod
    def of(cls, steps: int) -> Schedule:
        """Return the schedule of a run of `steps` steps."""
        last = steps - 1
        share = min(1.0, steps / _FULL)
        early = _even(0, min(_EARLY, last), round(10 * share))
        late = _even(min(_EARLY, last), last, round(4 * share))
        landscape = tuple(sorted({*early, *late}))
        return cls(
            landscape=landscape,
            shift=_thinned(landscape, 4),
            flow=_thinned(landscape, 10),
            units=tuple(_even(0, last, round(20 * share))),
        )


def _even(first: int, last: int, count: int) -> list[int]:
    gaps = max(count - 1, 1)
    return sorted({first + (last - first) * i // gaps for i in range(gaps + 1)})


def _thinned(steps: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tuple(steps[i] for i in _even(0, len(steps) - 1, count))
