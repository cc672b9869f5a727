"""How much each normalizer forgives: learning rate, initialization, batch size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims.curves import panel, series_table
from anynorm.study.claims.question import Answer, Question, Table, table
from anynorm.study.selection import Runs, sweep
from anynorm.study.spread import Score, Spread, spread
from anynorm.study.tolerance import points, tolerances
from anynorm.study.wording import join, number, plural

__all__ = ["QUESTIONS", "batch_effects", "decades_text"]

REFERENCE_BATCH = 32


def decades_text(tolerance: Mapping[str, Any]) -> str:
    """Return a tolerance in words: ``≥ 1.5 decades (0.03 to 1)``.

    >>> decades_text({"decades": 1.0, "low": 0.1, "high": 1.0, "open_low": False, "open_high": 1})
    '≥ 1.0 decades (0.1 to 1)'
    """
    if tolerance["decades"] is None:
        return "nowhere"
    bound = "≥ " if tolerance["open_low"] or tolerance["open_high"] else ""
    low, high = number(tolerance["low"]), number(tolerance["high"])
    interval = low if low == high else f"{low} to {high}"
    return f"{bound}{tolerance['decades']:.1f} decades ({interval})"


def _tolerance(runs: Runs, factor: str, words: str) -> Answer | str:
    found = tolerances(runs, factor)
    if not found:
        return f"only one {words} was run."
    ordered = sorted(found, key=lambda name: found[name]["decades"] or 0.0, reverse=True)
    texts = [f"{name} {decades_text(found[name])}" for name in ordered]
    figure = {
        "kind": "heat",
        "x": {"title": words, "log": True},
        "percent": runs.score.higher_is_better,
        "unit": f"worst seed, {'%' if runs.score.higher_is_better else 'loss'}",
        "higher_is_better": runs.score.higher_is_better,
        "rows": {name: _heat_row(found[name], runs.score) for name in found},
    }
    sentence = f"{words.capitalize()} tolerance: {join(texts, most=4)}."
    return Answer(sentence, figure, [_tolerance_table(found), _points_table(found, words)])


def _heat_row(tolerance: Mapping[str, Any], score: Score) -> dict[str, Any]:
    keys = ("value", "n", "diverged", "median", "low", "high")
    points = [{**{k: p[k] for k in keys}, "worst": score.worst(p)} for p in tolerance["points"]]
    return {"points": points, "holds": [tolerance["low"], tolerance["high"]]}


def _tolerance_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = ["normalizer", "decades", "from", "to", "reaches the lowest", "reaches the highest"]
    rows = [[name, t["decades"], t["low"], t["high"], *_reaches(t)] for name, t in found.items()]
    return table("Tolerance", columns, rows)


def _reaches(tolerance: Mapping[str, Any]) -> list[str]:
    return ["yes" if tolerance.get(key) else "no" for key in ("open_low", "open_high")]


def _points_table(found: Mapping[str, Mapping[str, Any]], words: str) -> Table:
    keys = ("value", "n", "diverged", "median", "low", "high")
    rows = [[name, *(p[key] for key in keys)] for name in found for p in found[name]["points"]]
    columns = ["normalizer", words, "seeds", "diverged", "median", "low", "high"]
    return table("Every value", columns, rows)


def batch_effects(runs: Runs) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Return the reference batch size, and each normalizer's change of error from it.

    The change is in points of error, or in decades of held-out loss for a regression.
    """
    found = points(sweep(runs, "batch"), "batch", runs.score)
    sizes = {point["value"] for row in found.values() for point in row}
    if not sizes:
        return REFERENCE_BATCH, {}
    reference = int(min(sizes, key=lambda size: abs(math.log(size / REFERENCE_BATCH))))
    effects = {name: _effects(row, reference, runs.score) for name, row in found.items()}
    return reference, {name: row for name, row in effects.items() if row}


def _effects(row: Sequence[Spread], reference: int, score: Score) -> list[dict[str, Any]]:
    centre = next((point["median"] for point in row if point["value"] == reference), None)
    if centre is None:
        return []
    return [
        {
            "value": point["value"],
            **spread(
                [_rise(value, centre, score) for value in point["values"]], higher_is_better=False
            ),
        }
        for point in row
    ]


def _rise(value: float | None, reference: float, score: Score) -> float | None:
    if value is None:
        return None
    if score.higher_is_better:
        return 100 * (reference - value)
    return math.log10(value / reference) if value > 0 and reference > 0 else None


def _batch(runs: Runs) -> Answer | str:
    reference, effects = batch_effects(runs)
    if not effects:
        return "only one batch size was run, or none at equal epochs with a scaled learning rate."
    unit = "points" if runs.score.higher_is_better else "decades of loss"
    panels = [
        panel(f"change of error from batch size {reference}, {unit}", _effect_series(effects))
    ]
    figure = {"kind": "series", "panels": panels, "markers": True}
    figure["x"] = {"title": "batch size", "log": True, "ticks": _sizes(effects)}
    sentence = _batch_sentence(effects, reference, unit)
    return Answer(sentence, figure, [series_table("batch size", panels)])


def _sizes(effects: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[int]:
    return sorted({point["value"] for row in effects.values() for point in row})


def _effect_series(effects: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    return {
        name: {
            "x": [point["value"] for point in row],
            **{key: [point[key] for point in row] for key in ("median", "low", "high")},
        }
        for name, row in effects.items()
    }


def _batch_sentence(
    effects: Mapping[str, Sequence[Mapping[str, Any]]], reference: int, unit: str
) -> str:
    smallest = min(_sizes(effects))
    found = {name: row[0] for name, row in effects.items() if row[0]["value"] == smallest}
    ordered = sorted(found, key=lambda name: -_size(found[name]))
    texts = [f"{name} {_signed(found[name])}" for name in ordered]
    return (
        f"From batch size {reference} to {smallest}, the error changes ({unit}) by "
        f"{join(texts, most=4)}, with a learning rate that scales with the batch size."
    )


def _size(point: Mapping[str, Any]) -> float:
    return math.inf if point["median"] is None else abs(point["median"])


def _signed(point: Mapping[str, Any]) -> str:
    if point["median"] is None:
        return f"(diverged in {point['diverged']} of {plural(point['n'], 'run')})"
    ends = ["diverged" if point[key] is None else _plus(point[key]) for key in ("low", "high")]
    return f"{_plus(point['median'])} [{ends[0]}, {ends[1]}]"


def _plus(value: float) -> str:
    # Adding zero turns the negative zero that rounding leaves into a plain one.
    return f"{round(value, 1) + 0.0:+.1f}"


HOLDS = (
    "Decades over which the worst of the seeds does not diverge and stays {margin} that any "
    "normalizer reaches in this sweep. Cells show the worst seed; a cross marks values at which "
    "a seed diverged. A tolerance that reaches the end of the grid is a lower bound (≥)."
)
MARGIN = "within 5 points of the best accuracy, or at most at twice the best loss,"

QUESTIONS = (
    Question(
        "lr",
        "Which learning rates work?",
        HOLDS.format(margin=MARGIN),
        lambda runs: _tolerance(runs, "lr", "learning rate"),
    ),
    Question(
        "init",
        "Which scales of the initial weights work?",
        "Initial weights multiplied by a factor. " + HOLDS.format(margin=MARGIN),
        lambda runs: _tolerance(runs, "init", "initialization scale"),
    ),
    Question(
        "batch",
        "Which batch sizes work?",
        "err(b) − err(32): held-out error at batch size b minus the median at 32 (or at the "
        "nearest size measured), at equal epochs. The learning rate scales with the batch size, "
        "so a curve shows the effect of both.",
        _batch,
    ),
)
