"""The spread over seeds: a median and a range, in which diverged runs count as the worst."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

__all__ = [
    "ACCURACY",
    "LOSS",
    "SCORES",
    "PerSeed",
    "Record",
    "Score",
    "Spread",
    "by_seed",
    "final",
    "final_value",
    "finite",
    "score_of",
    "spread",
]

Record = Mapping[str, Any]
Spread = dict[str, Any]
PerSeed = Mapping[int, float | None]  # a value for each seed; None is a run that diverged


def by_seed(
    records: Sequence[Record], value: Callable[[Record], float | None]
) -> dict[int, float | None]:
    """Return the value of each run by its seed, in order of seed."""
    ordered = sorted(records, key=lambda record: record["cell"]["seed"])
    return {record["cell"]["seed"]: finite(value(record)) for record in ordered}


def finite(value: float | None) -> float | None:
    """Return `value`, or ``None`` if it is missing or not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def spread(values: Sequence[float | None], *, higher_is_better: bool) -> Spread:
    """Median and range over seeds; ``None`` is a diverged run and counts as the worst value.

    If the median or an end of the range is a diverged run, it is ``None``.

    >>> spread([0.9, 0.8, None], higher_is_better=True)["median"]
    0.8
    >>> spread([0.9, 0.8, None], higher_is_better=True)["low"] is None
    True
    """
    worst = -math.inf if higher_is_better else math.inf
    kept = [finite(value) for value in values]
    ordered = sorted(worst if value is None else value for value in kept)
    return {
        "n": len(kept),
        "diverged": kept.count(None),
        "median": finite(median(ordered)) if ordered else None,
        "low": finite(ordered[0]) if ordered else None,
        "high": finite(ordered[-1]) if ordered else None,
        "values": kept,
    }


def final(records: Sequence[Record], key: str) -> Spread:
    """Return the spread of a loss at the end of training."""
    return spread([final_value(record, key) for record in records], higher_is_better=False)


def final_value(record: Record, key: str) -> float | None:
    """Return the final value of a run; ``None`` if the run diverged."""
    return finite((record.get("final") or {}).get(key)) if record["status"] == "ok" else None


@dataclass(frozen=True)
class Score:
    """The number by which normalizers are judged: held-out accuracy, or a held-out loss.

    `key` is its name in a record's ``final``. `good_within` is the distance from the best that
    still counts as good: a fraction of all samples, or a factor of the loss. Differences within
    ± `equal_within`, in points of accuracy or per cent of a loss, do not count.
    """

    name: str
    key: str
    higher_is_better: bool
    good_within: float
    equal_within: float

    def value(self, record: Record) -> float | None:
        """Return the score of one run; ``None`` if it diverged."""
        return final_value(record, self.key)

    def spread(self, records: Sequence[Record]) -> Spread:
        """Return the spread of the score over `records`."""
        values = [self.value(record) for record in records]
        return spread(values, higher_is_better=self.higher_is_better)

    def worst(self, seeds: Spread) -> float | None:
        """Return the worst seed; ``None`` if one diverged."""
        end = seeds["low"] if self.higher_is_better else seeds["high"]
        return None if end is None else float(end)

    def rank_value(self, value: float | None) -> float:
        """Return a number that is larger for a better score; a diverged run is the smallest."""
        if value is None:
            return -math.inf
        return value if self.higher_is_better else -value

    @property
    def unit(self) -> str:
        """The unit of differences between scores: points of accuracy, or per cent of the loss."""
        return "points" if self.higher_is_better else "%"

    def outcome(self, value: float | None) -> float | None:
        """Return a score on the scale for comparisons, on which larger is better.

        An accuracy becomes per cent, so that differences are points. A loss becomes −100 times its
        logarithm, so that small differences are per cent of the loss. None if the run diverged.
        """
        if value is None:
            return None
        return 100 * value if self.higher_is_better else -100 * math.log(max(value, _TINY))

    def shown(self, difference: float | None) -> float | None:
        """Convert a difference on that scale to the reported unit: points, or per cent of the loss.

        >>> round(LOSS.shown(100 * math.log(2)), 1), round(LOSS.shown(-100 * math.log(2)), 1)
        (50.0, -100.0)
        """
        if difference is None or self.higher_is_better:
            return difference
        return 100 * (1 - math.exp(-difference / 100))

    def opposite(self, difference: float) -> float:
        """Return a reported difference in the other direction.

        >>> ACCURACY.opposite(2.0), LOSS.opposite(50.0), LOSS.opposite(-100.0)
        (-2.0, -100.0, 50.0)
        """
        if self.higher_is_better:
            return -difference
        return 100 * (1 - 1 / max(1 - difference / 100, _TINY))

    def close(self, value: float | None, best: float) -> bool:
        """Whether `value` still counts as good compared with `best`."""
        if value is None:
            return False
        # A rounding error must not exclude a run that is exactly at the limit.
        if self.higher_is_better:
            return value >= self.limit(best) - 1e-9
        return value <= self.limit(best) * (1 + 1e-9)

    def limit(self, best: float) -> float:
        """Return the worst score that still counts as good compared with `best`."""
        return best - self.good_within if self.higher_is_better else best * self.good_within


_TINY = 1e-12  # stands for a loss of zero, which has no logarithm

ACCURACY = Score(
    "held-out accuracy", "test_accuracy", higher_is_better=True, good_within=0.05, equal_within=0.5
)
LOSS = Score(
    "held-out loss", "test_loss", higher_is_better=False, good_within=2.0, equal_within=2.0
)
# A regression's loss falls by orders of magnitude, one in nats by tenths: the data's entropy stays.
NATS = replace(LOSS, name="held-out loss, nats per character", good_within=1.05)

SCORES = {"classification": ACCURACY, "regression": LOSS, "language": NATS}


def score_of(records: Sequence[Record]) -> Score:
    """Return what the task of `records` is judged by.

    A classification is judged by held-out accuracy, a regression by held-out loss, and language by
    held-out loss in nats.
    """
    return SCORES[records[0]["task"]]
