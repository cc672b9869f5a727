"""The normalizers of one study in order: chosen on training data, ranked on held-out data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from anynorm.study.chosen import at_own_rate
from anynorm.study.claims.sweeps import batch_effects, range_text
from anynorm.study.claims.tradeoffs import cost_ratios
from anynorm.study.selection import Runs
from anynorm.study.spread import Score, Spread, final
from anynorm.study.tolerance import tolerances

__all__ = ["CRITERIA", "LARGEST_NULL", "null_probability", "preference", "ranking", "separated"]

LARGEST_NULL = 0.1
CRITERIA = (
    "a wider tolerance to the learning rate",
    "a wider tolerance to the initialization",
    "a smaller loss at small batches",
    "a lower time per step",
)


def null_probability(n: int, m: int) -> float:
    """Return how often all of `n` seeds lie on one side of all of `m` by chance alone.

    >>> null_probability(3, 3), null_probability(1, 1)
    (0.1, 1.0)
    """
    return 2 / math.comb(n + m, n)


def separated(better: Spread, worse: Spread, score: Score) -> bool:
    """Say whether every seed of `better` beats every seed of `worse`, with enough seeds to tell.

    Enough means that chance alone would separate equals in at most one of ten comparisons, which
    takes three seeds of each. A diverged run is worse than every run that finished.
    """
    if null_probability(better["n"], worse["n"]) > LARGEST_NULL:
        return False
    worst = min(score.rank_value(value) for value in better["values"])
    best = max(score.rank_value(value) for value in worse["values"])
    return worst > best


def ranking(runs: Runs) -> list[dict[str, Any]]:
    """Return one entry for each normalizer, best first.

    Each runs at the learning rate with the lowest training loss among those at which the fewest
    seeds diverged. Its ``rank`` is one more than the number of normalizers that are separated
    above it, so those that the seeds cannot tell apart share a rank.
    """
    chosen = at_own_rate(runs)
    scores = {name: runs.score.spread(records) for name, records in chosen.items()}
    side = _side_measures(runs)
    entries = [
        {
            "label": name,
            "rank": 1 + sum(separated(s, scores[name], runs.score) for s in scores.values()),
            "lr": records[0]["cell"]["lr"],
            "score": scores[name],
            "train_loss": final(records, "train_loss"),
            **{key: measure.get(name) for key, measure in side.items()},
        }
        for name, records in chosen.items()
    ]
    return sorted(entries, key=lambda e: (e["rank"], -runs.score.rank_value(e["score"]["median"])))


def _side_measures(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return what breaks ties: tolerances, loss at small batches, and cost, by normalizer."""
    costs = cost_ratios(runs)
    return {
        "lr_tolerance": _tolerances(runs, "lr"),
        "init_tolerance": _tolerances(runs, "init"),
        "small_batch": _small_batches(runs),
        "time": {name: _median(c["seconds_per_step"]) for name, c in costs.items()},
        "memory": {name: _median(c["bytes_for_backward"]) for name, c in costs.items()},
    }


def _tolerances(runs: Runs, factor: str) -> dict[str, Any]:
    found = tolerances(runs, factor)
    return {n: {"decades": t["decades"], "text": range_text(t)} for n, t in found.items()}


def _small_batches(runs: Runs) -> dict[str, Any]:
    reference, effects = batch_effects(runs)
    smallest = min((point["value"] for row in effects.values() for point in row), default=None)
    return {
        name: {**point, "batch": smallest, "reference": reference}
        for name, row in effects.items()
        for point in row
        if point["value"] == smallest
    }


def _median(seeds: Spread | None) -> float | None:
    return None if seeds is None else seeds["median"]


def preference(entry: Mapping[str, Any]) -> tuple[float, ...]:
    """Order tied normalizers for the recommendation by `CRITERIA`; smaller is preferred.

    The error at small batches counts in steps of 5 points and the time in steps of a tenth:
    finer differences are noise.
    """
    small, time = entry["small_batch"], entry["time"]
    rise = 0.0 if small is None else math.inf if small["median"] is None else small["median"]
    return (
        -_decades(entry["lr_tolerance"]),
        -_decades(entry["init_tolerance"]),
        rise if math.isinf(rise) else round(rise / 5),
        math.inf if time is None else round(time, 1),
    )


def _decades(tolerance: Mapping[str, Any] | None) -> float:
    if tolerance is None:
        return 0.0
    return -1.0 if tolerance["decades"] is None else round(tolerance["decades"], 2)
