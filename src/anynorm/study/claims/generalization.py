"""Training against held-out accuracy, at equal training loss and at equal steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from anynorm.study.claims.curves import panel
from anynorm.study.claims.judge import Statement, judge
from anynorm.study.claims.question import Answer, Question, Table, ends, table
from anynorm.study.selection import Runs, by_label, sweep
from anynorm.study.spread import PerSeed, Record, Score, finite, spread
from anynorm.study.wording import number

__all__ = ["QUESTIONS", "gap_at"]

Points = Sequence[tuple[float, float]]
LEVELS = 9  # training losses at which a curve of generalization gaps is drawn


def _gap_points(record: Record, score: Score) -> Points:
    """Return training loss and generalization gap at every evaluation of a run."""
    found = record.get("evaluations") or {}
    kind = "accuracy" if score.higher_is_better else "loss"
    columns = [found.get(key) or [] for key in ("train_loss", f"train_{kind}", f"test_{kind}")]
    sign = 100 if score.higher_is_better else -1
    return [
        (loss, sign * (seen - unseen))
        for loss, seen, unseen in zip(*columns, strict=False)  # a record may be cut short
        if None not in (finite(loss), finite(seen), finite(unseen)) and loss > 0
    ]


def gap_at(record_points: Sequence[tuple[float, float]], level: float) -> float | None:
    """Return the gap where the loss first falls to `level`, interpolated over the log of the loss.

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
        name: {r["cell"]["seed"]: pts for r in records if (pts := _gap_points(r, runs.score))}
        for name, records in groups.items()
    }
    found = {name: curves for name, curves in found.items() if curves}
    if not found:
        return (
            "no run at the base setting was evaluated during training, because all of them "
            "diverged. A smaller --lr may help."
        )
    level = _common_level(found)
    at_loss = {name: _gaps_at(curves, level) for name, curves in found.items()}
    at_end = {name: _last_gaps(records, runs.score) for name, records in groups.items()}
    judged = [
        judge(known, _statement(runs.score, where, equal))
        for values, where, equal in (
            (at_loss, f"a training loss of {number(level)}", "equal training loss"),
            (at_end, "the last step", "equal steps"),
        )
        if (known := {name: gaps for name, gaps in values.items() if gaps})
    ]
    tables = [*(one.table for one in judged[1:]), *_batch_gap_tables(runs), _level_table(level)]
    figure = {"kind": "series", "x": AXIS, "panels": [_gap_panel(found, runs.score)]}
    more = " ".join(f"At equal steps: {one.status}. {one.sentence}" for one in judged[1:])
    answer = judged[0].answer({**figure, "markers": True}, tables, more=more)
    return answer._replace(comparisons=[c.to_dict() for one in judged for c in one.comparisons])


def _level_table(level: float) -> Table:
    shown = level if math.isfinite(level) else "no normalizer halved its loss"
    return table("Common training loss", ["loss"], [[shown]])


AXIS = {"title": "training loss (training goes right)", "log": True, "reversed": True}


def _statement(score: Score, where: str, equal: str) -> Statement:
    return Statement(
        f"{{name}} regularizes: its generalization gap is smaller at {equal}.",
        f"generalization gap at {where}",
        unit=_unit(score),
        margin=score.equal_within if score.higher_is_better else 0.05,
    )


def _unit(score: Score) -> str:
    return "points" if score.higher_is_better else "of the loss"


def _gap_panel(found: Mapping[str, Mapping[int, Points]], score: Score) -> dict[str, Any]:
    series = {name: _gap_curve(list(curves.values())) for name, curves in found.items()}
    return panel(f"generalization gap, {_unit(score)}", series)


def _common_level(found: Mapping[str, Mapping[int, Points]]) -> float:
    """Return the lowest training loss that every normalizer that trains reaches in every run.

    A normalizer that never halves its first loss is left out: at its loss nothing is learned yet.
    """
    lowest = []
    for curves in found.values():
        reached = max(min(loss for loss, _ in curve) for curve in curves.values())
        if reached < 0.5 * max(curve[0][0] for curve in curves.values()):
            lowest.append(reached)
    return max(lowest, default=math.nan)


def _gaps_at(curves: Mapping[int, Points], level: float) -> PerSeed:
    """Return the gap where the loss of each run falls to `level`, without runs that stay above."""
    gaps = {seed: gap_at(curve, level) for seed, curve in curves.items()}
    return {seed: gap for seed, gap in gaps.items() if gap is not None}


def _last_gaps(records: Sequence[Record], score: Score) -> PerSeed:
    """Return the gap of each run at its last step; a diverged run has none and is censored."""
    found: dict[int, float | None] = {}
    for record in records:
        points = _gap_points(record, score)
        if record["status"] != "ok":
            found[record["cell"]["seed"]] = None
        elif points:
            found[record["cell"]["seed"]] = points[-1][1]
    return found


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
    return {"x": levels, **{k: [gap[k] for gap in gaps] for k in ("median", "low", "high")}}


def _batch_gap_tables(runs: Runs) -> list[Table]:
    """Return the gap at the last step by batch size, with scaled and with equal learning rate."""
    sweeps = {
        "learning rate in proportion to the batch, equal epochs": sweep(runs, "batch"),
        "the same learning rate": _at_held_rate(runs),
    }
    made = [_batch_gap_table(records, runs.score, words) for words, records in sweeps.items()]
    return [found for found in made if found["rows"]]


def _at_held_rate(runs: Runs) -> list[Record]:
    """Return the runs at the base learning rate, if they have more than one batch size."""
    fixed = ("lr", "init", "placement")
    found = [
        record
        for record in runs.records
        if all(record["cell"][name] == runs.base_value(name) for name in fixed)
    ]
    return found if len({record["cell"]["batch"] for record in found}) > 1 else []


def _batch_gap_table(records: Sequence[Record], score: Score, words: str) -> Table:
    groups: dict[tuple[str, int, int], list[Record]] = {}
    for name, runs in by_label(records).items():
        for record in runs:
            cell = record["cell"]
            groups.setdefault((name, cell["batch"], cell["steps"]), []).append(record)
    gaps = {key: _last_gaps(group, score) for key, group in sorted(groups.items())}
    found = {
        key: spread(list(values.values()), higher_is_better=False)
        for key, values in gaps.items()
        if values
    }
    columns = ["normalizer", "batch size", "steps", "seeds", "diverged", "median", "low", "high"]
    rows = [[*key, s["n"], s["diverged"], *ends(s)] for key, s in found.items()]
    return table(f"Gap at the last step, {_unit(score)}: {words}", columns, rows)


QUESTIONS = (
    Question(
        "generalization",
        "Is the gap between training and held-out data smaller?",
        "The gap is training minus held-out accuracy (for a regression: held-out minus training "
        "loss). It is compared at equal training loss and at equal steps. The common training loss "
        "is the lowest one that all normalizers that train reach; gaps are interpolated between "
        "evaluations. A smaller gap means regularization.",
        _generalization,
    ),
)
