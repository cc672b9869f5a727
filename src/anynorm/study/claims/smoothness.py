"""How predictable a step is: loss range, gradient predictiveness, effective smoothness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims.curves import (
    Pick,
    early_errors,
    early_values,
    merge,
    panel,
    probe,
    series_table,
)
from anynorm.study.claims.judge import Judgement, Statement, judge, spreads
from anynorm.study.claims.question import Answer, Question, Table, ends, table
from anynorm.study.selection import Runs
from anynorm.study.spread import PerSeed

__all__ = ["NOT_PROBED", "QUESTIONS", "focus", "judge_early"]

NOT_PROBED = (
    "no run at the base setting was probed. Probes are on by default: leave out --no-probes."
)
PART = "landscape"


def judge_early(runs: Runs, pick: Pick, statement: Statement) -> Judgement | None:
    """Judge a statement by the means over the first 100 steps; None if there are no means."""
    groups = runs.at_base()
    means = early_values(groups, pick)
    errors = early_errors(groups, pick)
    column = {"standard error of drawn steps": errors} if errors else {}
    return judge(means, statement, more_columns=column) if means else None


def focus(runs: Runs) -> list[str]:
    """Return the curves that a crowded figure shows at first: none and batch, or the first two."""
    labels = list(runs.at_base())
    pair = ["none", "batch"]
    return pair if set(pair) <= set(labels) else labels[:2]


def _band(
    runs: Runs, keys: Sequence[str], statement: Statement, of: str, title: str
) -> Answer | str:
    """Answer with the band from the smallest to the largest value over the step sizes a."""
    groups = runs.at_base()
    middle, low, high = (merge(groups, probe(PART, key)) for key in keys)
    judged = judge_early(runs, probe(PART, of), statement)
    if not judged or not set(middle) <= set(low) & set(high):
        return NOT_PROBED
    series: dict[str, Any] = {
        name: {**curve, "low": _medians(low[name], curve), "high": _medians(high[name], curve)}
        for name, curve in middle.items()
    }
    panels = [panel(title, series, log=True)]
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels, "focus": focus(runs)}
    return judged.answer(figure, [series_table("step", panels)])


def _medians(curve: Mapping[str, Any], at: Mapping[str, Any]) -> list[float | None]:
    """Return the medians of a curve at the steps of another one."""
    found = dict(zip(curve["x"], curve["median"], strict=True))
    return [found.get(step) for step in at["x"]]


LOSS_RANGE = Statement(
    "{name} makes the loss along the gradient vary less.",
    "loss range over the first 100 steps",
)
GRADIENT_DISTANCE = Statement(
    "{name} makes the gradient change less along a step.",
    "gradient distance over the first 100 steps",
)
ETA_BETA = Statement(
    "{name} makes the gradient change less relative to its length: η·β is smaller.",
    "η·β over the first 100 steps",
)


def _loss_bands(runs: Runs) -> Answer | str:
    keys = ("loss", "loss_low", "loss_high")
    return _band(runs, keys, LOSS_RANGE, "loss_range", "loss along the gradient")


def _predictiveness(runs: Runs) -> Answer | str:
    keys = ("distance_high", "distance_low", "distance_high")
    title = "gradient distance ‖∇L(θ_a) − g‖"
    return _band(runs, keys, GRADIENT_DISTANCE, "distance_high", title)


def _smoothness(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    beta = merge(groups, probe(PART, "beta"))
    eta_beta = merge(groups, probe(PART, "eta_beta"))
    judged = judge_early(runs, probe(PART, "eta_beta"), ETA_BETA)
    if not beta or not judged:
        return NOT_PROBED
    panels = [panel("β", beta, log=True), panel("η·β", eta_beta, log=True)]
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels}
    means = early_values(groups, probe(PART, "beta"))
    return judged.answer(figure, [_means_table(means), series_table("step", panels)])


def _means_table(means: Mapping[str, PerSeed]) -> Table:
    columns = ["normalizer", "seeds", "diverged", "median", "lowest", "highest"]
    rows = [[n, s["n"], s["diverged"], *ends(s)] for n, s in spreads(means).items()]
    return table("β over the first 100 steps", columns, rows)


QUESTIONS = (
    Question(
        "loss-range",
        "Does the loss change less along a step?",
        "With the batch B, g = ∇L_B(θ) and the learning rate η fixed, the loss at θ − a·η·g for "
        "a in {½, 1, 2, 3, 4}. The band runs from the smallest to the largest of these losses, "
        "the line is the loss before the step; loss range = max − min (Santurkar et al. 2018, "
        "1805.11604). Bands are medians over seeds.",
        _loss_bands,
    ),
    Question(
        "predictiveness",
        "Does a gradient stay valid for longer?",
        "Gradient predictiveness: D_a = ‖∇L_B(θ − a·η·g) − g‖₂ for a in {½, 1, 2, 3, 4}, as a "
        "band from the smallest to the largest. The line and the sentence use the largest. Bands "
        "are medians over seeds.",
        _predictiveness,
    ),
    Question(
        "smoothness",
        "Does the loss become smoother?",
        "β = max over a of D_a / (a·η·‖g‖), the steepest change of the gradient along the step. "
        "Only η·β is judged: training with the learning rate η drives β to about 2/η, whatever the "
        "normalizer, so that β alone says little.",
        _smoothness,
    ),
)
