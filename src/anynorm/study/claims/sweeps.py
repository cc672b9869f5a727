"""The tolerance of each normalizer to learning rate, initialization and batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anynorm.study.claims.judge import NAMED, NONE, Judgement, Statement, judge
from anynorm.study.claims.question import Answer, Question, Table, ends, table
from anynorm.study.claims.small_batch import QUESTIONS as SMALL_BATCH
from anynorm.study.claims.small_batch import batch_effects
from anynorm.study.inference import LEVEL
from anynorm.study.selection import Runs
from anynorm.study.spread import Score
from anynorm.study.tolerance import tolerances, widths
from anynorm.study.wording import fold, number

__all__ = ["QUESTIONS", "batch_effects", "range_answers", "range_text"]


def range_text(found: Mapping[str, Any]) -> str:
    """Return a range in words; "at least" if it reaches an end of the values tried.

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


def range_answers(runs: Runs, factor: str, level: float) -> dict[str, str]:
    """Return for each normalizer whether its range is wider than that of none, as an answer."""
    return {found.a: found.answer for found in _judged(runs, factor, level).comparisons}


def _judged(runs: Runs, factor: str, level: float = LEVEL) -> Judgement:
    return judge(widths(runs, factor), RANGES[factor], level=level)


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
    judged = _judged(runs, factor)
    tables = [_tolerance_table(found), _points_table(found, words)]
    answer = judged.answer(figure, tables)
    return answer._replace(sentence=f"{_ranges_sentence(found)} {answer.sentence}")


def _ranges_sentence(found: Mapping[str, Mapping[str, Any]]) -> str:
    ordered = sorted(found, key=lambda name: found[name]["decades"] or 0.0, reverse=True)
    named = [n for at, n in enumerate(ordered) if at < NAMED or n in (NONE, "batch")]
    good = [f"{name}: {range_text(found[name])}" for name in named]
    at_all = [f"{name}: {range_text(found[name]['trains'])}" for name in named]
    return (
        f"Where every seed trains well: {'; '.join(good)}. "
        f"Where every seed trains at all: {'; '.join(at_all)}."
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
        columns += [f"{words}: {key}" for key in ("from", "to", "fold", "reaches the end tried")]
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


HOLDS = (
    "A run trains well if it does not diverge and its score is close to the best of this sweep: "
    "within 5 points of the best accuracy, or at most twice the best loss. The best is that of any "
    "normalizer at any value, judged by its worst seed. A run trains at all if it does not diverge "
    "and the mean of its last ten losses is at least a tenth below the loss of guessing, which is "
    "the smallest first loss at the base initial scale. A range is the widest one without a gap. "
    "If it reaches an end of the values tried, it is a lower bound. The claim compares the ranges "
    "of single seeds, within the values tried. Such a range ends between two values, where the "
    "score crosses the limit, or in the middle if the run diverged."
)

QUESTIONS = (
    Question(
        "lr",
        "Which learning rates work?",
        HOLDS,
        lambda runs: _tolerance(runs, "lr", "learning rate", "--lrs"),
    ),
    Question(
        "init",
        "Which scales of the initial weights work?",
        f"The initial weights are multiplied by a factor. {HOLDS}",
        lambda runs: _tolerance(runs, "init", "initial scale", "--inits"),
    ),
    *SMALL_BATCH,
)
