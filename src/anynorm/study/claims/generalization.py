"""Training against held-out accuracy, at equal training loss and at equal steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from anynorm.study.claims.question import Answer, Question, table
from anynorm.study.selection import Runs, by_label, sweep
from anynorm.study.spread import Record, Score, Spread, finite, spread
from anynorm.study.wording import join, number, spread_text

__all__ = ["QUESTIONS", "gap_at"]

LEVELS = 9  # training losses at which a curve of generalization gaps is drawn


def _gap_points(record: Record, score: Score) -> list[tuple[float, float]]:
    """Return training loss and generalization gap at every evaluation of a run."""
    found = record.get("evaluations") or {}
    kind = "accuracy" if score.higher_is_better else "loss"
    columns = [found.get(key) or [] for key in ("train_loss", f"train_{kind}", f"test_{kind}")]
    sign = 100 if score.higher_is_better else -1
    return [
        (loss, sign * (seen - unseen))
        for loss, seen, unseen in zip(*columns, strict=True)
        if None not in (finite(loss), finite(seen), finite(unseen)) and loss > 0
    ]


def gap_at(record_points: Sequence[tuple[float, float]], level: float) -> float | None:
    """Interpolate the gap, in the logarithm of the loss, where the loss first falls to `level`.

    >>> gap_at([(1.0, 0.0), (0.01, 4.0)], 0.1)
    2.0
    """
    for (before, gap), (after, later) in pairwise(record_points):
        if before >= level >= after and before > after:
            share = math.log(before / level) / math.log(before / after)
            return gap + share * (later - gap)
    return None


def _generalization(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    found = {
        name: [points for r in records if (points := _gap_points(r, runs.score))]
        for name, records in groups.items()
    }
    found = {name: curves for name, curves in found.items() if curves}
    if not found:
        return "no run at the base setting was evaluated during training."
    level = _common_level(found)
    unit = "points" if runs.score.higher_is_better else "loss"
    spreads = {
        name: (_gaps_at(found.get(name, []), level), _last_gaps(records, runs.score))
        for name, records in groups.items()
    }
    spreads = {name: both for name, both in spreads.items() if both[1]["n"]}
    series = {name: _gap_curve(curves) for name, curves in found.items()}
    panels = [{"title": f"generalization gap, {unit}", "log": False, "series": series}]
    axis = {"title": "training loss (training goes right)", "log": True, "reversed": True}
    figure = {"kind": "series", "x": axis, "panels": panels, "markers": True}
    tables = [_gap_table(spreads, level, unit), _batch_gap_table(runs, unit)]
    return Answer(_gap_sentence(spreads, level, unit), figure, [t for t in tables if t["rows"]])


def _common_level(found: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> float:
    """Return the lowest training loss that every normalizer that trains reaches in every run.

    One that never halves its first loss would put the level where nothing has been learned yet.
    """
    lowest = []
    for curves in found.values():
        reached = max(min(loss for loss, _ in curve) for curve in curves)
        if reached < 0.5 * max(curve[0][0] for curve in curves):
            lowest.append(reached)
    return max(lowest, default=math.nan)


def _gaps_at(curves: Sequence[Sequence[tuple[float, float]]], level: float) -> Spread:
    gaps = [gap for curve in curves if (gap := gap_at(curve, level)) is not None]
    return spread(gaps, higher_is_better=False)


def _last_gaps(records: Sequence[Record], score: Score) -> Spread:
    """Return the spread of the gap at the last step; a diverged run has none and is censored."""
    ends: list[float | None] = []
    for record in records:
        points = _gap_points(record, score)
        if record["status"] != "ok":
            ends.append(None)
        elif points:
            ends.append(points[-1][1])
    return spread(ends, higher_is_better=False)


def _gap_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Return the spread over seeds of the gap at losses that all seeds pass through."""
    highest = min(curve[0][0] for curve in curves)
    lowest = max(min(loss for loss, _ in curve) for curve in curves)
    if lowest >= highest:
        return {"x": [], "median": [], "low": [], "high": []}
    ratio = lowest / highest
    # The ends are exact, or rounding could put them where a seed has no evaluation.
    levels = [
        highest,
        *(highest * ratio ** (i / (LEVELS - 1)) for i in range(1, LEVELS - 1)),
        lowest,
    ]
    gaps = [
        spread([gap_at(curve, level) for curve in curves], higher_is_better=False)
        for level in levels
    ]
    ends = {key: [gap[key] for gap in gaps] for key in ("median", "low", "high")}
    return {"x": levels, **ends}


def _gap_table(
    spreads: Mapping[str, tuple[Spread, Spread]], level: float, unit: str
) -> dict[str, Any]:
    columns = ["normalizer"]
    for words in (f"at training loss {number(level)}", "at the last step"):
        columns += [f"{words}: {key}" for key in ("seeds", "median", "low", "high")]
    rows = [
        [name, *(s[key] for s in both for key in ("n", "median", "low", "high"))]
        for name, both in spreads.items()
    ]
    return table(f"Gap, {unit}", columns, rows)


def _batch_gap_table(runs: Runs, unit: str) -> dict[str, Any]:
    """Return the gap at equal epochs for every normalizer and batch size."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for name, records in by_label(sweep(runs, "batch")).items():
        for record in records:
            groups.setdefault((name, record["cell"]["batch"]), []).append(record)
    found = {key: _last_gaps(records, runs.score) for key, records in sorted(groups.items())}
    rows = [
        [*key, *(gaps[k] for k in ("n", "median", "low", "high"))]
        for key, gaps in found.items()
        if gaps["n"]
    ]
    columns = ["normalizer", "batch size", "seeds", "median", "low", "high"]
    return table(f"Gap at equal epochs, {unit}", columns, rows)


def _gap_sentence(spreads: Mapping[str, tuple[Spread, Spread]], level: float, unit: str) -> str:
    reached = {name: both[0] for name, both in spreads.items() if both[0]["n"]}
    parts = [
        _listed(f"Gap ({unit}) at a training loss of {number(level)}", reached),
        _listed("At the last step", {name: both[1] for name, both in spreads.items()}),
    ]
    return " ".join(part for part in parts if part)


def _listed(words: str, spreads: Mapping[str, Spread]) -> str:
    ordered = sorted(spreads, key=lambda name: _or_worst(spreads[name]["median"]))
    texts = [f"{name} {spread_text(spreads[name])}" for name in ordered]
    return f"{words}: {join(texts, most=4)}." if texts else ""


def _or_worst(value: float | None) -> float:
    return math.inf if value is None else value


QUESTIONS = (
    Question(
        "generalization",
        "Is the gap between training and held-out data smaller?",
        "Training minus held-out accuracy (for a regression held-out minus training loss), at "
        "equal training loss and at equal steps. The common training loss is the lowest that "
        "all normalizers that train reach; a gap is interpolated between evaluations.",
        _generalization,
    ),
)
