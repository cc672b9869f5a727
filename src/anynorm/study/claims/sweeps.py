"""How much each normalizer forgives: learning rate, initialization, batch size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims.curves import panel, series_table
from anynorm.study.claims.judge import NAMED, NONE, Statement, judge
from anynorm.study.claims.question import Answer, Question, Table, ends, table
from anynorm.study.selection import Runs, sweep
from anynorm.study.spread import Score, Spread, spread
from anynorm.study.tolerance import points, tolerances, widths
from anynorm.study.wording import fold, join, number, plural

__all__ = ["QUESTIONS", "batch_effects", "range_text"]

REFERENCE_BATCH = 32


def range_text(found: Mapping[str, Any]) -> str:
    """Return a range in words; "at least" where it reaches an end of what was tried.

    >>> range_text({"low": 0.1, "high": 1.0, "open_low": False, "open_high": True})
    'from 0.1 to 1 (at least 10-fold)'
    >>> range_text({"low": 0.1, "high": 0.1, "open_low": False, "open_high": False})
    '0.1 only'
    """
    if found["low"] is None:
        return "nowhere"
    bounded = not (found["open_low"] or found["open_high"])
    if found["low"] == found["high"]:
        return f"{number(found['low'])} only" + ("" if bounded else ", the end of what was tried")
    bound = "" if bounded else "at least "
    width = fold(found["high"] / found["low"])
    return f"from {number(found['low'])} to {number(found['high'])} ({bound}{width}-fold)"


WIDER = ("wider", "narrower")
RANGES = {
    "lr": Statement(
        "{name} trains well over a wider range of learning rates.",
        "highest over lowest usable learning rate",
        WIDER,
        larger_is_better=True,
        lost="usable nowhere",
    ),
    "init": Statement(
        "{name} trains well over a wider range of initial scales.",
        "highest over lowest usable initial scale",
        WIDER,
        larger_is_better=True,
        lost="usable nowhere",
    ),
}


def _tolerance(runs: Runs, factor: str, words: str, option: str) -> Answer | str:
    found = tolerances(runs, factor)
    if not found:
        return f"only one {words} was run. {option} with two values or more would measure it."
    figure = {
        "kind": "heat",
        "x": {"title": words, "log": True},
        "percent": runs.score.higher_is_better,
        "unit": f"worst seed, {'%' if runs.score.higher_is_better else 'loss'}",
        "higher_is_better": runs.score.higher_is_better,
        "rows": {name: _heat_row(found[name], runs.score) for name in found},
    }
    judged = judge(widths(runs, factor), RANGES[factor])
    tables = [_tolerance_table(found), _points_table(found, words)]
    answer = judged.answer(figure, tables)
    return answer._replace(sentence=f"{_ranges_sentence(found)} {answer.sentence}")


def _ranges_sentence(found: Mapping[str, Mapping[str, Any]]) -> str:
    ordered = sorted(found, key=lambda name: found[name]["decades"] or 0.0, reverse=True)
    named = [n for at, n in enumerate(ordered) if at < NAMED or n in (NONE, "batch")]
    good = [f"{name} {range_text(found[name])}" for name in named]
    at_all = [f"{name} {range_text(found[name]['trains'])}" for name in named]
    return (
        f"Every seed trains well with {'; '.join(good)}. "
        f"Every seed trains at all with {'; '.join(at_all)}."
    )


def _heat_row(tolerance: Mapping[str, Any], score: Score) -> dict[str, Any]:
    keys = ("value", "n", "diverged", "median", "low", "high", "trained")
    points = [{**{k: p[k] for k in keys}, "worst": score.worst(p)} for p in tolerance["points"]]
    trains = tolerance["trains"]
    return {
        "points": points,
        "holds": [tolerance["low"], tolerance["high"]],
        "trains": [trains["low"], trains["high"]],
    }


def _tolerance_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = ["normalizer"]
    for words in ("trains well", "trains at all"):
        columns += [f"{words}: {key}" for key in ("from", "to", "fold", "ends with the grid")]
    rows = [[name, *_range_cells(t), *_range_cells(t["trains"])] for name, t in found.items()]
    return table("Ranges in which every seed trains", columns, rows)


def _range_cells(found: Mapping[str, Any]) -> list[float | str]:
    if found["low"] is None:
        return ["nowhere", "nowhere", "nowhere", "not applicable"]
    sides = {"lowest": found["open_low"], "highest": found["open_high"]}
    reached = " and ".join(side for side, open_end in sides.items() if open_end)
    return [found["low"], found["high"], found["high"] / found["low"], reached or "no"]


def _points_table(found: Mapping[str, Mapping[str, Any]], words: str) -> Table:
    keys = ("value", "n", "diverged", "trained")
    rows = [[n, *(p[key] for key in keys), *ends(p)] for n in found for p in found[n]["points"]]
    columns = ["normalizer", words, "seeds", "diverged", "train at all", "median", "low", "high"]
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
        return (
            "only one batch size was run, or none at equal epochs with a scaled learning rate. "
            "--batches with two values or more would measure it."
        )
    unit = "points" if runs.score.higher_is_better else "decades of loss"
    panels = [
        panel(f"change of error from batch size {reference}, {unit}", _effect_series(effects))
    ]
    figure = {"kind": "series", "panels": panels, "markers": True}
    figure["x"] = {"title": "batch size", "log": True, "ticks": _sizes(effects)}
    sentence = _batch_sentence(effects, reference, unit)
    answer = _judged_at_smallest(effects, runs, unit)
    tables = [*answer.tables, series_table("batch size", panels)]
    return answer._replace(sentence=f"{sentence} {answer.sentence}", figure=figure, tables=tables)


def _judged_at_smallest(
    effects: Mapping[str, Sequence[Mapping[str, Any]]], runs: Runs, unit: str
) -> Answer:
    smallest = min(_sizes(effects))
    found = {name: row[0] for name, row in effects.items() if row[0]["value"] == smallest}
    values = {name: dict(enumerate(point["values"])) for name, point in found.items()}
    others = [name for name in values if name != "batch"]
    control = NONE if NONE in values else others[0] if others else NONE
    statement = Statement(
        f"{{name}} loses more than {control} when the batch gets small.",
        f"change of error at batch size {smallest}",
        unit=unit,
        margin=0.5 if runs.score.higher_is_better else 0.05,
        shown_by=("harmful",),
        contradicted_by=("better", "equivalent"),
    )
    return judge(values, statement, control=control).answer({})


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
    "A run trains well if it does not diverge and stays {margin} that any normalizer reaches in "
    "this sweep with its worst seed. It trains at all if it does not diverge and its last ten "
    "losses are on average a tenth or more below the loss of guessing, which is the smallest first "
    "loss at the base initial scale. A range is the widest without a gap; one that reaches an end "
    "of what was tried is a lower bound. The claim compares the ranges of single seeds within what "
    "was tried. The end of such a range is put between two values, where the score crosses the "
    "limit, or in the middle if the run diverged."
)
MARGIN = "within 5 points of the best accuracy, or at most at twice the best loss,"

QUESTIONS = (
    Question(
        "lr",
        "Which learning rates work?",
        HOLDS.format(margin=MARGIN),
        lambda runs: _tolerance(runs, "lr", "learning rate", "--lrs"),
    ),
    Question(
        "init",
        "Which scales of the initial weights work?",
        "Initial weights multiplied by a factor. " + HOLDS.format(margin=MARGIN),
        lambda runs: _tolerance(runs, "init", "initial scale", "--inits"),
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
