"""The normalizers of one study in order: chosen on training data, ranked on held-out data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims.convergence import convergence_ratios
from anynorm.study.claims.sweeps import batch_effects, range_answers, range_text
from anynorm.study.claims.tradeoffs import cost_ratios
from anynorm.study.inference import LEVEL
from anynorm.study.selection import Runs
from anynorm.study.spread import Record, Score, Spread, final
from anynorm.study.tolerance import tolerances

__all__ = ["ranking"]


def ranking(
    runs: Runs,
    groups: Mapping[str, Sequence[Record]],
    scores: Mapping[str, Score],
    level: float = LEVEL,
) -> list[dict[str, Any]]:
    """Return one entry for each normalizer with all its measurements, best score first.

    `groups` are the runs of each normalizer at its own learning rate, see `at_own_rate`; `scores`
    has the score by which each is judged, and `level` is the error rate for a wider range.
    """
    side = _side_measures(runs, scores, level)
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


def _side_measures(
    runs: Runs, scores: Mapping[str, Score], level: float
) -> dict[str, dict[str, Any]]:
    """Return the measurements that break ties, by normalizer: tolerances, small batches, cost."""
    costs = cost_ratios(runs)
    return {
        **_both_tolerances(runs, level),
        **_small_batches(runs, scores),
        "convergence": _convergence(runs),
        "time": {name: _median(c["seconds_per_step"]) for name, c in costs.items()},
        "memory": {name: _median(c["bytes_for_backward"]) for name, c in costs.items()},
    }


def _both_tolerances(runs: Runs, level: float) -> dict[str, dict[str, Any]]:
    """Return the usable learning rates and initial scales.

    The tests are in a fixed sequence, so each can use the whole level: initial scales are compared
    only if a range of learning rates was shown to be wider, or no range was measured.
    """
    rates, scales = (_tolerances(runs, factor, level) for factor in ("lr", "init"))
    if rates and all(found["answer"] != "better" for found in rates.values()):
        scales = {name: {**found, "answer": None} for name, found in scales.items()}
    return {"lr_tolerance": rates, "init_tolerance": scales}


def _tolerances(runs: Runs, factor: str, level: float) -> dict[str, Any]:
    found = tolerances(runs, factor)
    answers = range_answers(runs, factor, level) if found else {}
    keys = ("decades", "low", "high", "open_low", "open_high", "trains")
    return {
        name: {
            **{key: t.get(key) for key in keys},
            "text": range_text(t),
            "answer": answers.get(name),
        }
        for name, t in found.items()
    }


def _convergence(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return the steps to the common training loss, relative to those of none."""
    return {
        name: {
            "answer": found.answer,
            "ratio": None if found.difference is None else math.exp(-found.difference),
        }
        for name, found in convergence_ratios(runs).items()
    }


def _small_batches(runs: Runs, scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Return the rise of the error at the smallest and at each batch size; None for diverged runs.

    The rise is in points; for a loss it is 100 times that of the logarithm.
    """
    reference, effects = batch_effects(runs, scores)
    smallest = min((point["value"] for row in effects.values() for point in row), default=None)
    at_smallest = {
        name: {**point, "batch": smallest, "reference": reference}
        for name, row in effects.items()
        for point in row
        if point["value"] == smallest
    }
    rises = {
        name: [[point["value"], point["median"]] for point in row] for name, row in effects.items()
    }
    return {"small_batch": at_smallest, "batch_sizes": rises}


def _median(seeds: Spread | None) -> float | None:
    return None if seeds is None else seeds["median"]
