"""Measurements inside the network: both covariate shifts, one unit, whiteness, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from anynorm.study.claims.curves import (
    Pick,
    has_values,
    merge,
    panel,
    probe,
    series_table,
)
from anynorm.study.claims.judge import Statement
from anynorm.study.claims.question import Answer, Question, table
from anynorm.study.claims.saturation import QUESTIONS as SATURATION
from anynorm.study.claims.smoothness import NOT_PROBED, focus, judge_early
from anynorm.study.layer_names import of_record
from anynorm.study.selection import Runs
from anynorm.study.spread import Record, Spread, spread
from anynorm.study.wording import join, number

__all__ = ["QUESTIONS"]

Measured = tuple[str, Pick, bool]


def _over_training(
    statement: Statement, *measured: Measured, more: str = ""
) -> Callable[[Runs], Answer | str]:
    """Answer with curves over the steps; `statement` is judged on the first of them.

    Each of `measured` is a title, a function that picks a curve from a run, and whether the axis is
    logarithmic.
    `more` is added to the sentence.
    """

    def answer(runs: Runs) -> Answer | str:
        groups = runs.at_base()
        panels = [panel(title, merge(groups, pick), log=log) for title, pick, log in measured]
        panels = [shown for shown in panels if has_values(shown)]
        judged = judge_early(runs, measured[0][1], statement)
        if not panels or not judged:
            return NOT_PROBED
        figure = {"kind": "series", "x": {"title": "step"}, "panels": panels}
        return judged.answer(figure, [series_table("step", panels)], more=more)

    return answer


def _unit(runs: Runs) -> Answer | str:
    series = {
        name: curve
        for name, records in runs.at_base().items()
        if (curve := _percentiles(records)) is not None
    }
    if not series:
        return NOT_PROBED
    panels = [panel("output of the unit", series)]
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels, "focus": focus(runs)}
    moved = {name: _travel(curve) for name, curve in series.items()}
    texts = [f"{name} {number(by)}" for name, by in moved.items() if by is not None]
    sentence = (
        "Movement of the median of one unit during training, in widths of its 15–85% band: "
        f"{join(texts, most=4) or 'not known'}."
    )
    columns = ["normalizer", "movement of the median, in widths of the band"]
    tables = [table("Movement", columns, list(moved.items())), series_table("step", panels)]
    return Answer(sentence, figure, tables)


def _percentiles(records: Sequence[Record]) -> dict[str, Any] | None:
    # One unit of one run: units of different seeds are different units, so nothing is averaged.
    for record in records:
        units = (record.get("probes") or {}).get("units") or {}
        found = units.get("percentiles") or {}
        columns = [units.get("step") or [], *(found.get(k) or [] for k in ("p50", "p15", "p85"))]
        if all(columns):
            count = min(len(column) for column in columns)
            names = ("x", "median", "low", "high")
            return {name: col[:count] for name, col in zip(names, columns, strict=True)}
    return None


def _travel(curve: Mapping[str, Sequence[float | None]]) -> float | None:
    """Return how far the median moves, over the median width of the band."""
    middle = [value for value in curve["median"] if value is not None]
    widths = [
        high - low
        for low, high in zip(curve["low"], curve["high"], strict=True)
        if low is not None and high is not None
    ]
    width = median(widths) if widths else 0.0
    return (max(middle) - min(middle)) / width if middle and width > 0 else None


def _flow(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    names = _layer_names(groups)
    if not names:
        return NOT_PROBED
    judged = judge_early(runs, probe("flow", "max_over_min"), EVEN_FLOW)
    if judged is None:
        return NOT_PROBED
    panels = [
        panel(f"‖∇W‖ / ‖W‖, {when}", _depth(groups, index), log=True)
        for when, index in (("first probe", 0), ("last probe", -1))
    ]
    ticks = {"title": "layer, input to output", "names": names}
    figure = {"kind": "series", "x": ticks, "panels": panels, "markers": True}
    return judged.answer(figure, [series_table("layer", panels)])


def _layer_names(groups: Mapping[str, Sequence[Record]]) -> list[str]:
    for records in groups.values():
        for record in records:
            flow = (record.get("probes") or {}).get("flow") or {}
            if flow.get("ratio") and flow.get("layers"):
                return of_record(flow)
    return []


def _depth(groups: Mapping[str, Sequence[Record]], index: int) -> dict[str, Any]:
    """Return the spread over seeds of every layer's ratio at the `index`-th probe."""
    found = {}
    for name, records in groups.items():
        flows = [(record.get("probes") or {}).get("flow") or {} for record in records]
        rows = [flow["ratio"][index] for flow in flows if flow.get("ratio")]
        if rows:
            # Rows of a record that was cut short may have fewer layers.
            layers = [spread(layer, higher_is_better=False) for layer in zip(*rows, strict=False)]
            found[name] = _as_curve(layers)
    return found


def _as_curve(layers: Sequence[Spread]) -> dict[str, Any]:
    ends = {key: [layer[key] for layer in layers] for key in ("median", "low", "high")}
    return {"x": list(range(1, len(layers) + 1)), **ends}


EVEN_FLOW = Statement(
    "{name} makes the layers learn at more equal rates.",
    "largest over smallest ‖∇W‖ / ‖W‖ of the layers over the first 100 steps",
)
STEADY_GRADIENTS = Statement(
    "{name} does not reduce the internal covariate shift that the optimizer sees.",
    "relative gradient shift over the first 100 steps",
    shown_by=("equivalent", "harmful"),
    contradicted_by=("better",),
)
BY_CONSTRUCTION = (
    "Units are measured in training mode, before the activation. After a batch norm their mean and "
    "standard deviation on the probe batch are then β and |γ|, so their shift is small by "
    "construction."
)
STEADY_UNITS = Statement(
    "{name} makes the distributions of the units' inputs shift less.",
    "Wasserstein-1 shift over the first 100 steps",
)
WHITER = Statement(
    "{name} makes the outputs of a layer less correlated.",
    "mean absolute correlation over the first 100 steps",
)


QUESTIONS = (
    Question(
        "shift-optimization",
        "Does the covariate shift that the optimizer sees stay?",
        "G_i is the gradient of layer i at step t; G'_i is its gradient on the same batch after "
        "the layers before i took the step to t + 1 (Santurkar et al. 2018, definition 2.1). The "
        "figure shows ‖G − G'‖/‖G‖ and the cosine of G and G', as medians over layers. The raw "
        "distance is not comparable between normalizers: scale-invariant weights have gradients "
        "∝ 1/‖W‖. The published finding is that batch norm does not reduce this shift.",
        _over_training(
            STEADY_GRADIENTS,
            ("‖G − G'‖ / ‖G‖", probe("shift", "relative"), True),
            ("cosine of G and G'", probe("shift", "cosine"), False),
        ),
    ),
    Question(
        "shift-distribution",
        "Do the distributions of the units' inputs shift less?",
        "Measured for each unit on one fixed probe batch, from one measurement to the next: "
        "Wasserstein-1 distance / σ, |Δμ| / σ and |Δ log σ|. The values are medians over units, "
        "then over layers.",
        _over_training(
            STEADY_UNITS,
            ("Wasserstein-1 / σ", probe("units", "wasserstein"), True),
            ("|Δμ| / σ", probe("units", "mean_shift"), True),
            ("|Δ log σ|", probe("units", "log_std_shift"), True),
            more=BY_CONSTRUCTION,
        ),
    ),
    Question(
        "unit",
        "How far does one unit move during training?",
        "The 15th, 50th and 85th percentiles of one unit of the last hidden layer on a fixed "
        "batch, in one run (Ioffe & Szegedy 2015, 1502.03167).",
        _unit,
    ),
    *SATURATION,
    Question(
        "whiteness",
        "Are a layer's outputs less correlated?",
        "Mean absolute off-diagonal correlation of a layer's outputs on the probe batch: 0 is "
        "white. Median over layers.",
        _over_training(
            WHITER,
            ("mean |correlation|", probe("units", "whiteness"), False),
        ),
    ),
    Question(
        "flow",
        "Do all layers learn at the same speed?",
        "ρ_l = ‖∇W_l‖ / ‖W_l‖ of every layer: how fast each layer learns relative to its size.",
        _flow,
    ),
)
