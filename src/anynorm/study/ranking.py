"""The normalizers of one study in order: chosen on training data, ranked on held-out data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims.outcome import final
from anynorm.study.claims.sweeps import batch_effects, decades_text
from anynorm.study.claims.tradeoffs import cost_ratios
from anynorm.study.selection import Runs, by_label, sweep
from anynorm.study.spread import Record, Score, Spread
from anynorm.study.tolerance import tolerances

__all__ = ["chosen", "ranking"]


def chosen(runs: Runs) -> dict[str, list[Record]]:
    """Return each normalizer's runs at its own learning rate.

    That is the rate with the lowest training loss among those at which the fewest seeds diverged.
    """
    return {name: _chosen(records) for name, records in by_label(_candidates(runs)).items()}


def ranking(
    runs: Runs, groups: Mapping[str, Sequence[Record]], scores: Mapping[str, Score]
) -> list[dict[str, Any]]:
    """Return one entry for each normalizer with all that was measured of it, best score first.

    `groups` are the runs of each normalizer at its own learning rate, see `chosen`, and `scores`
    what each is judged by.
    """
    side = _side_measures(runs)
    entries = [
        {
            "label": name,
            "lr": records[0]["cell"]["lr"],
            "score": scores[name].spread(records),
            "train_loss": final(records, "train_loss"),
            **{key: measure.get(name) for key, measure in side.items()},
        }
        for name, records in groups.items()
    ]
    return sorted(entries, key=lambda e: -runs.score.rank_value(e["score"]["median"]))


def _candidates(runs: Runs) -> Sequence[Record]:
    found = sweep(runs, "lr")
    return found or [record for records in runs.at_base().values() for record in records]


def _chosen(records: Sequence[Record]) -> list[Record]:
    rates: dict[float, list[Record]] = {}
    for record in records:
        rates.setdefault(record["cell"]["lr"], []).append(record)
    # A rate with a seed or two of a study that was interrupted must not win by luck.
    most = max(map(len, rates.values()))
    enough = [group for group in rates.values() if 2 * len(group) >= most]
    return min(enough, key=_training_order)


def _training_order(records: Sequence[Record]) -> tuple[int, float]:
    loss = final(records, "train_loss")
    return loss["diverged"], math.inf if loss["median"] is None else loss["median"]


def _side_measures(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return what breaks ties: tolerances, loss at small batches, and cost, by normalizer."""
    costs = cost_ratios(runs)
    return {
        "lr_tolerance": _tolerances(runs, "lr"),
        "init_tolerance": _tolerances(runs, "init"),
        "small_batch": _small_batches(runs),
        "batch_sizes": _batch_sizes(runs),
        "time": {name: _median(c["seconds_per_step"]) for name, c in costs.items()},
        "memory": {name: _median(c["bytes_for_backward"]) for name, c in costs.items()},
    }


def _tolerances(runs: Runs, factor: str) -> dict[str, Any]:
    found = tolerances(runs, factor)
    keys = ("decades", "low", "high", "open_low", "open_high")
    return {
        n: {**{key: t.get(key) for key in keys}, "text": decades_text(t)} for n, t in found.items()
    }


def _small_batches(runs: Runs) -> dict[str, Any]:
    reference, effects = batch_effects(runs)
    smallest = min((point["value"] for row in effects.values() for point in row), default=None)
    return {
        name: {**point, "batch": smallest, "reference": reference}
        for name, row in effects.items()
        for point in row
        if point["value"] == smallest
    }


def _batch_sizes(runs: Runs) -> dict[str, list[list[Any]]]:
    """Return the rise of the error at each batch size, in points; None where runs diverged."""
    _, effects = batch_effects(runs)
    return {
        name: [[point["value"], point["median"]] for point in row] for name, row in effects.items()
    }


def _median(seeds: Spread | None) -> float | None:
    return None if seeds is None else seeds["median"]
