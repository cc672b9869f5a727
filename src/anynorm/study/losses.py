"""The smoothed training loss of a run, how fast it falls, and whether it falls at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from anynorm.study.selection import Runs
from anynorm.study.spread import Record, finite

__all__ = ["WINDOW", "Smoothed", "guessing_loss", "smoothed", "trains"]

WINDOW = 10  # recorded mini-batch losses in a mean
FALL = 0.9  # of the loss of guessing: a run that ends above this has not trained


class Smoothed(NamedTuple):
    """The mean of the last ten recorded mini-batch losses, at each recorded step."""

    steps: Sequence[int]
    losses: Sequence[float]

    @property
    def halved(self) -> bool:
        """Whether the last loss is at most half of the first."""
        return self.losses[-1] <= 0.5 * self.losses[0]

    def steps_below(self, level: float) -> int | None:
        """Return the number of steps after which the loss stays below `level`; None if never."""
        above = [at for at, loss in enumerate(self.losses) if loss >= level]
        first = above[-1] + 1 if above else 0
        # The first step has the number 0, and a run takes at least one step.
        return self.steps[first] + 1 if first < len(self.steps) else None


def smoothed(record: Record) -> Smoothed | None:
    """Return the smoothed training loss while it is finite; None if there is none.

    >>> smoothed({"curve": {"step": [0, 1, 2], "train_loss": [3.0, 1.0, None]}})
    Smoothed(steps=[0, 1], losses=[3.0, 2.0])
    """
    curve = record.get("curve") or {}
    steps, losses = curve.get("step") or [], curve.get("train_loss") or []
    known: list[float] = []
    for loss in losses[: len(steps)]:
        if (value := finite(loss)) is None:
            break
        known.append(value)
    if not known:
        return None
    ends = [(max(0, end - WINDOW), end) for end in range(1, len(known) + 1)]
    return Smoothed(
        steps[: len(known)], [sum(known[low:high]) / (high - low) for low, high in ends]
    )


def guessing_loss(runs: Runs) -> float | None:
    """Return an estimate of the loss of guessing: the smallest first loss at the base scale.

    A record does not have the frequency of each class, but a network that has learned nothing is
    at best as good as guessing.
    """
    scale = runs.base_value("init")
    found = [smoothed(r) for r in runs.records if r["cell"]["init"] == scale]
    return min((curve.losses[0] for curve in found if curve), default=None)


def trains(record: Record, guessing: float | None) -> bool:
    """Whether a run did not diverge and ended at least a tenth below the loss of guessing."""
    curve = smoothed(record)
    if record["status"] != "ok" or curve is None or guessing is None:
        return False
    return curve.losses[-1] <= FALL * guessing
