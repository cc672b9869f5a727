"""What several seeds say together: a median and a range in which diverged runs are censored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["ACCURACY", "LOSS", "Record", "Score", "Spread", "finite", "score_of", "spread"]

Record = Mapping[str, Any]
Spread = dict[str, Any]


def finite(value: float | None) -> float | None:
    """Return `value`, or ``None`` where it is missing or not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def spread(values: Sequence[float | None], *, higher_is_better: bool) -> Spread:
    """Median and range over seeds; ``None`` is a diverged run and counts as the worst value.

    A median or an end of the range that falls on a diverged run is ``None``.

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


@dataclass(frozen=True)
class Score:
    """The number that normalizers are judged by: held-out accuracy, or held-out loss.

    `key` names it in a record's ``final``; `margin` is how far from the best still counts as
    good: points of accuracy, or a factor of the loss.
    """

    name: str
    key: str
    higher_is_better: bool
    margin: float

    def value(self, record: Record) -> float | None:
        """Return the score of one run; ``None`` where it diverged."""
        if record["status"] != "ok":
            return None
        return finite(record["final"].get(self.key))

    def spread(self, records: Sequence[Record]) -> Spread:
        """Return the spread of the score over `records`."""
        values = [self.value(record) for record in records]
        return spread(values, higher_is_better=self.higher_is_better)

    def worst(self, seeds: Spread) -> float | None:
        """Return the worst seed; ``None`` where one diverged."""
        end = seeds["low"] if self.higher_is_better else seeds["high"]
        return None if end is None else float(end)

    def rank_value(self, value: float | None) -> float:
        """Return a number that is larger for a better score; a diverged run is the smallest."""
        if value is None:
            return -math.inf
        return value if self.higher_is_better else -value

    def close(self, value: float | None, best: float) -> bool:
        """Say whether `value` is within the margin of `best`."""
        if value is None:
            return False
        # A rounding error must not put a run that is exactly on the margin outside it.
        if self.higher_is_better:
            return value >= best - self.margin - 1e-9
        return value <= best * self.margin * (1 + 1e-9)


ACCURACY = Score("held-out accuracy", "test_accuracy", higher_is_better=True, margin=0.05)
LOSS = Score("held-out loss", "test_loss", higher_is_better=False, margin=2.0)


def score_of(records: Sequence[Record]) -> Score:
    """Return held-out accuracy for a classification, held-out loss for a regression."""
    return LOSS if records[0]["task"] == "regression" else ACCURACY
