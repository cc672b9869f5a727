"""What happens inside: covariate shift in both senses, a unit, whiteness, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from anynorm.study.claims.compare import compare, comparison_table
from anynorm.study.claims.curves import Pick, early, merge, panel, probe, series_table
from anynorm.study.claims.question import Answer, Question
from anynorm.study.claims.saturation import QUESTIONS as SATURATION
from anynorm.study.claims.smoothness import NOT_PROBED, focus
from anynorm.study.selection import Runs
from anynorm.study.spread import Record, Spread, spread
from anynorm.study.wording import join

__all__ = ["QUESTIONS"]

Measured = tuple[str, Pick, bool]


def _over_training(words: str, *measured: Measured) -> Callable[[Runs], Answer | str]:
    """Answer with curves over the steps; `words` names the first, which the sentence compares.

    Each of `measured` is a title, what to pick from a run, and whether its axis is logarithmic.
    """

    def answer(runs: Runs) -> Answer | str:
        groups = runs.at_base()
        panels = [panel(title, merge(groups, pick), log=log) for title, pick, log in measured]
        panels = [shown for shown in panels if _has_values(shown)]
        means = early(groups, measured[0][1])
        if not panels or not means:
            return NOT_PROBED
        figure = {"kind": "series", "x": {"title": "step"}, "panels": panels}
        tables = [comparison_table(f"{words}, mean of the first 100 steps", means)]
        sentence = compare(f"{words} over the first 100 steps", means)
        return Answer(sentence, figure, [*tables, series_table("step", panels)])

    return answer


def _has_values(shown: Mapping[str, Any]) -> bool:
    return any(y is not None for curve in shown["series"].values() for y in curve["median"])


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
    texts = [f"{name} by {_travel(curve):.2g}" for name, curve in series.items()]
    sentence = (
        "Over training the median of one unit moves, in widths of its 15–85% band: "
        f"{join(texts, most=4)}."
    )
    return Answer(sentence, figure, [series_table("step", panels)])


def _percentiles(records: Sequence[Record]) -> dict[str, Any] | None:
    # One unit of one run: units of different seeds are different units, so nothing is averaged.
    for record in records:
        units = (record.get("probes") or {}).get("units") or {}
        found = units.get("percentiles") or {}
        if found.get("p50"):
            ends = {"median": found["p50"], "low": found["p15"], "high": found["p85"]}
            return {"x": units["step"], **ends}
    return None


def _travel(curve: Mapping[str, Sequence[float | None]]) -> float:
    """Return how far the median wanders, over the median width of the band."""
    middle = [value for value in curve["median"] if value is not None]
    widths = [
        high - low
        for low, high in zip(curve["low"], curve["high"], strict=True)
        if low is not None and high is not None
    ]
    width = median(widths) if widths else 0.0
    return (max(middle) - min(middle)) / width if middle and width > 0 else float("nan")


def _flow(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    names = _layer_names(groups)
    if not names:
        return NOT_PROBED
    panels = [
        panel(f"‖∇W‖ / ‖W‖, {when}", _depth(groups, index), log=True)
        for when, index in (("first probe", 0), ("last probe", -1))
    ]
    ticks = {"title": "layer, input to output", "names": names}
    figure = {"kind": "series", "x": ticks, "panels": panels, "markers": True}
    means = early(groups, probe("flow", "max_over_min"))
    words = "Largest over smallest ‖∇W‖ / ‖W‖ of the layers"
    tables = [comparison_table(f"{words}, mean of the first 100 steps", means)]
    sentence = compare(f"{words}, over the first 100 steps,", means)
    return Answer(sentence, figure, [*tables, series_table("layer", panels)])


def _layer_names(groups: Mapping[str, Sequence[Record]]) -> list[str]:
    for records in groups.values():
        for record in records:
            flow = (record.get("probes") or {}).get("flow") or {}
            if flow.get("ratio"):
                return [str(name) for name in flow["layers"]]
    return []


def _depth(groups: Mapping[str, Sequence[Record]], index: int) -> dict[str, Any]:
    """Return the spread over seeds of every layer's ratio at the `index`-th probe."""
    found = {}
    for name, records in groups.items():
        flows = [(record.get("probes") or {}).get("flow") or {} for record in records]
        rows = [flow["ratio"][index] for flow in flows if flow.get("ratio")]
        if rows:
            layers = [spread(layer, higher_is_better=False) for layer in zip(*rows, strict=True)]
            found[name] = _as_curve(layers)
    return found


def _as_curve(layers: Sequence[Spread]) -> dict[str, Any]:
    ends = {key: [layer[key] for layer in layers] for key in ("median", "low", "high")}
    return {"x": list(range(1, len(layers) + 1)), **ends}


QUESTIONS = (
    Question(
        "shift-optimization",
        "Internal covariate shift, as the optimizer sees it",
        "G_i is the gradient of layer i at step t; G'_i is the same on the same batch, with the "
        "layers before i already at step t + 1 (Santurkar et al. 2018, definition 2.1). Shown are "
        "‖G − G'‖/‖G‖ and the cosine of G and G', median over layers. The raw distance is not "
        "comparable: scale-invariant weights have gradients ∝ 1/‖W‖.",
        _over_training(
            "Relative gradient shift",
            ("‖G − G'‖ / ‖G‖", probe("shift", "relative"), True),
            ("cosine of G and G'", probe("shift", "cosine"), False),
        ),
    ),
    Question(
        "shift-distribution",
        "Internal covariate shift, as distributions",
        "On one fixed probe batch, per unit and from one measurement to the next: Wasserstein-1 "
        "distance / σ, |Δμ| / σ and |Δ log σ|. Median over units, then over layers.",
        _over_training(
            "Wasserstein-1 shift",
            ("Wasserstein-1 / σ", probe("units", "wasserstein"), True),
            ("|Δμ| / σ", probe("units", "mean_shift"), True),
            ("|Δ log σ|", probe("units", "log_std_shift"), True),
        ),
    ),
    Question(
        "unit",
        "One unit over training",
        "The 15th, 50th and 85th percentiles of one unit of the last hidden layer on a fixed "
        "batch, in one run (Ioffe & Szegedy 2015, 1502.03167).",
        _unit,
    ),
    *SATURATION,
    Question(
        "whiteness",
        "Whiteness",
        "Mean absolute off-diagonal correlation of a layer's outputs on the probe batch: 0 is "
        "white. Median over layers.",
        _over_training(
            "Mean absolute correlation",
            ("mean |correlation|", probe("units", "whiteness"), False),
        ),
    ),
    Question(
        "flow",
        "Gradient flow over depth",
        "ρ_l = ‖∇W_l‖ / ‖W_l‖ of every layer: how fast each layer learns for its size.",
        _flow,
    ),
)
