"""What normalization costs: the gap between its two modes, time and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anynorm.study.claims.judge import NONE
from anynorm.study.claims.outcome import row
from anynorm.study.claims.question import Answer, Question, ends, table
from anynorm.study.selection import Runs
from anynorm.study.spread import Record, Spread, final_value, spread
from anynorm.study.wording import join, number, percent, times

__all__ = ["QUESTIONS", "cost_ratios"]

MODES = {
    "test_accuracy": "evaluation mode",
    "test_accuracy_train_mode": "training mode",
    "test_accuracy_recalibrated": "recomputed statistics",
}


def _modes(runs: Runs) -> Answer | str:
    if not runs.score.higher_is_better:
        return "the task is a regression, which has no accuracy. Use --data with classes."
    found = {name: _mode_spreads(records) for name, records in runs.at_base().items()}
    found = {name: modes for name, modes in found.items() if modes}
    if not found:
        return (
            "no run at the base setting was evaluated in both modes, because all of them diverged. "
            "A smaller --lr may help."
        )
    rows = [row(name, s, mark) for name, modes in found.items() for mark, s in modes.items()]
    panels = [{"title": "held-out accuracy", "log": False, "percent": True, "rows": rows}]
    columns = ["normalizer", "statistics", "seeds", "diverged", "median", "low", "high"]
    cells = [[r["label"], r["mark"], r["n"], r["diverged"], *ends(r)] for r in rows]
    tables = [table("Held-out accuracy", columns, cells)]
    return Answer(_modes_sentence(found), {"kind": "dots", "panels": panels}, tables)


def _mode_spreads(records: Sequence[Record]) -> dict[str, Spread]:
    return {
        mark: spread([final_value(r, key) for r in records], higher_is_better=True)
        for key, mark in MODES.items()
        if any(final_value(r, key) is not None for r in records)
    }


def _modes_sentence(found: Mapping[str, Mapping[str, Spread]]) -> str:
    gaps = {name: gap for name, modes in found.items() if (gap := _gap(modes)) is not None}
    if not gaps:
        return "No normalizer has a finished run in both modes."
    name = max(gaps, key=lambda key: abs(gaps[key]))
    if abs(gaps[name]) < 0.01:
        return "Training and evaluation mode agree within a point for every normalizer."
    texts = [f"{percent(s['median'])}% with {mark}" for mark, s in found[name].items()]
    return f"The two modes differ most for {name}: {join(texts)}."


def _gap(modes: Mapping[str, Spread]) -> float | None:
    ends = [modes.get(MODES[key], {}).get("median") for key in list(MODES)[:2]]
    return None if None in ends else float(ends[1]) - float(ends[0])  # type: ignore[arg-type]


def cost_ratios(runs: Runs) -> dict[str, dict[str, Spread | None]]:
    """Return time per step and bytes kept for backward, divided by those of none.

    If the study has no model without normalization, the values are seconds and bytes. If its runs
    did not record them, there is no ratio.
    """
    groups = runs.at_base()
    found: dict[str, dict[str, Spread | None]] = {}
    for key in ("seconds_per_step", "bytes_for_backward"):
        unit = _median_cost(groups[NONE], key) if NONE in groups else 1.0
        for name, records in groups.items():
            values = [value / unit for value in _costs(records, key)] if unit else []
            seeds = spread(values, higher_is_better=False) if values else None
            found.setdefault(name, {})[key] = seeds
    return found


def _costs(records: Sequence[Record], key: str) -> list[float]:
    values = [(record.get("cost") or {}).get(key) for record in records]
    return [float(value) for value in values if value is not None]


def _median_cost(records: Sequence[Record], key: str) -> float | None:
    median: float | None = spread(_costs(records, key), higher_is_better=False)["median"]
    return median


def _cost(runs: Runs) -> Answer | str:
    found = cost_ratios(runs)
    if not any(seeds for costs in found.values() for seeds in costs.values()):
        return "no run at the base setting recorded what it cost; run it again in a new --store."
    relative = NONE in found
    titles = _cost_titles(relative)
    panels = [
        {
            "title": titles[key],
            "log": False,
            "rows": [row(name, seeds) for name, c in found.items() if (seeds := c[key])],
        }
        for key in titles
    ]
    keys = ("median", "low", "high")
    columns = ["normalizer", *(f"{title}: {key}" for title in titles.values() for key in keys)]
    rows = [[name, *(x for key in titles for x in ends(c[key]))] for name, c in found.items()]
    figure = {"kind": "dots", "panels": panels}
    return Answer(_cost_sentence(found, relative), figure, [table("Cost", columns, rows)])


def _cost_titles(relative: bool) -> dict[str, str]:
    words = "× none" if relative else ""
    return {
        "seconds_per_step": f"time per step, {words or 'seconds'}",
        "bytes_for_backward": f"kept for backward, {words or 'bytes'}",
    }


def _cost_sentence(found: Mapping[str, Mapping[str, Spread | None]], relative: bool) -> str:
    texts = []
    for name, costs in found.items():
        medians = [seeds["median"] for seeds in costs.values() if seeds is not None]
        if name == NONE or None in medians or len(medians) < len(costs):
            continue
        values = [times(m) if relative else number(m) for m in medians]
        texts.append(f"{name} {values[0]} / {values[1]}")
    unit = "relative to the model without normalization" if relative else "in seconds and bytes"
    if not texts:
        return "No other normalizer has a cost to compare."
    return f"Time per step / memory for backward, {unit}: {join(texts, most=5)}."


QUESTIONS = (
    Question(
        "modes",
        "Do training and evaluation mode agree?",
        "Held-out accuracy with the statistics of the batch (training mode), with the running "
        "statistics (evaluation mode), and with statistics recomputed over the training set. "
        "Normalizers without running statistics give the same accuracy in all three.",
        _modes,
    ),
    Question(
        "cost",
        "What does it cost in time and memory?",
        "Time per training step without probes, and bytes that autograd keeps for the backward "
        "pass (parameters not counted), relative to the model without normalization. Runs share "
        "the machine, so times are noisy.",
        _cost,
    ),
)
