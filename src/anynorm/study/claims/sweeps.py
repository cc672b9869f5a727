"""How much each normalizer forgives: learning rate, initialization, batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anynorm.study.claims.question import Answer, Question, Table, table
from anynorm.study.claims.small_batch import QUESTIONS as SMALL_BATCH
from anynorm.study.claims.small_batch import batch_effects
from anynorm.study.selection import Runs
from anynorm.study.spread import Score
from anynorm.study.tolerance import tolerances
from anynorm.study.wording import join, number

__all__ = ["QUESTIONS", "batch_effects", "decades_text"]


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


HOLDS = (
    "Decades over which the worst of the seeds does not diverge and stays {margin} that any "
    "normalizer reaches in this sweep. Cells show the worst seed; a cross marks values at which "
    "a seed diverged. A tolerance that reaches the end of the grid is a lower bound (≥)."
)
MARGIN = "within 5 points of the best accuracy, or at most at twice the best loss,"

QUESTIONS = (
    Question(
        "lr",
        "Learning rate",
        HOLDS.format(margin=MARGIN),
        lambda runs: _tolerance(runs, "lr", "learning rate"),
    ),
    Question(
        "init",
        "Initialization",
        "Initial weights multiplied by a factor. " + HOLDS.format(margin=MARGIN),
        lambda runs: _tolerance(runs, "init", "initialization scale"),
    ),
    *SMALL_BATCH,
)
