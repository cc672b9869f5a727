"""How predictable a step is: loss bands, gradient predictiveness, effective smoothness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anynorm.study.claims.compare import compare, comparison_table
from anynorm.study.claims.curves import early, merge, panel, probe, series_table
from anynorm.study.claims.question import Answer, Question
from anynorm.study.selection import Runs

__all__ = ["NOT_PROBED", "QUESTIONS", "focus"]

NOT_PROBED = "no run at the base setting was probed for it."
PART = "landscape"


def focus(runs: Runs) -> list[str]:
    """Return what a crowded figure shows at first: none and batch, or the first two."""
    labels = list(runs.at_base())
    pair = ["none", "batch"]
    return pair if set(pair) <= set(labels) else labels[:2]


def _band(runs: Runs, keys: Sequence[str], quantity: str, mean_of: str, title: str) -> Answer | str:
    """Answer with the band between the smallest and the largest value over the multipliers."""
    groups = runs.at_base()
    middle, low, high = (merge(groups, probe(PART, key)) for key in keys)
    means = early(groups, probe(PART, mean_of))
    if not middle or not means:
        return NOT_PROBED
    series: dict[str, Any] = {
        name: {**curve, "low": low[name]["median"], "high": high[name]["median"]}
        for name, curve in middle.items()
    }
    panels = [panel(title, series, log=True)]
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels, "focus": focus(runs)}
    tables = [comparison_table(f"{quantity}, mean of the first 100 steps", means)]
    sentence = compare(f"{quantity} over the first 100 steps", means)
    return Answer(sentence, figure, [*tables, series_table("step", panels)])


def _loss_bands(runs: Runs) -> Answer | str:
    keys = ("loss", "loss_low", "loss_high")
    return _band(runs, keys, "Loss range", "loss_range", "loss along the gradient")


def _predictiveness(runs: Runs) -> Answer | str:
    keys = ("distance_high", "distance_low", "distance_high")
    title = "gradient distance ‖∇L(θ_a) − g‖"
    return _band(runs, keys, "Gradient distance", "distance_high", title)


def _smoothness(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    beta = merge(groups, probe(PART, "beta"))
    eta_beta = merge(groups, probe(PART, "eta_beta"))
    if not beta or not eta_beta:
        return NOT_PROBED
    panels = [panel("β", beta, log=True), panel("η·β", eta_beta, log=True)]
    means = [early(groups, probe(PART, key)) for key in ("beta", "eta_beta")]
    names = ("β", "η·β")
    sentence = " ".join(
        compare(f"{name} over the first 100 steps", mean)
        for name, mean in zip(names, means, strict=True)
    )
    tables = [comparison_table(name, mean) for name, mean in zip(names, means, strict=True)]
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels}
    return Answer(sentence, figure, [*tables, series_table("step", panels)])


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
        "band from the smallest to the largest. The line and the sentence give the largest. Bands "
        "are medians over seeds.",
        _predictiveness,
    ),
    Question(
        "smoothness",
        "Does the loss become smoother?",
        "β = max over a of D_a / (a·η·‖g‖), the steepest change of the gradient along the step. "
        "Training regulates β near 2/η, so β at different learning rates says little by itself: "
        "η·β is shown beside it.",
        _smoothness,
    ),
)
