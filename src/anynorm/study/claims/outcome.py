"""How the normalizers end: scores, training loss, diverged runs, the placement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims.compare import compare
from anynorm.study.claims.curves import Curve, merge, panel, series_table
from anynorm.study.claims.question import Answer, Question, Table, table
from anynorm.study.selection import Runs, by_label, sweep
from anynorm.study.spread import Record, Score, Spread, spread
from anynorm.study.wording import join, plural, score_text

__all__ = ["QUESTIONS", "base_text", "final", "row", "score_panel", "score_table"]

OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam"}


def final(records: Sequence[Record], key: str) -> Spread:
    """Return the spread of a loss at the end of training."""
    values = [r["final"].get(key) if r["status"] == "ok" else None for r in records]
    return spread(values, higher_is_better=False)


def row(name: str, seeds: Spread, mark: str = "") -> dict[str, Any]:
    """Return one row of a figure of dots: a normalizer, which of its values, and the spread."""
    return {"label": name, "mark": mark, **seeds}


def score_panel(score: Score, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a panel of scores, best first."""
    ordered = sorted(rows, key=lambda r: score.rank_value(r["median"]), reverse=True)
    accuracy = score.higher_is_better
    return {
        "title": score.name,
        "log": not accuracy,
        "percent": accuracy,
        "rows": ordered,
    }


def score_table(score: Score, groups: Mapping[str, Sequence[Record]], caption: str) -> Table:
    """Return scores and losses of every group of runs."""
    losses = ("train_loss", "test_loss")
    columns = ["normalizer", "seeds", "diverged"]
    for name in (score.name, *(["training loss", "held-out loss"])):
        columns += [f"{name}: {key}" for key in ("median", "low", "high")]
    rows = []
    for name, records in groups.items():
        spreads = [score.spread(records), *(final(records, key) for key in losses)]
        ends = [s[key] for s in spreads for key in ("median", "low", "high")]
        rows.append([name, spreads[0]["n"], spreads[0]["diverged"], *ends])
    return table(caption, columns, rows)


def _base(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    if not groups:
        return "no run at the base setting has finished."
    scores = {name: runs.score.spread(records) for name, records in groups.items()}
    shown = score_panel(runs.score, [row(name, seeds) for name, seeds in scores.items()])
    order = [found["label"] for found in shown["rows"]]
    losses = [row(name, final(groups[name], "train_loss")) for name in order]
    panels = [shown, {"title": "training loss", "log": True, "rows": losses}]
    tables = [score_table(runs.score, groups, base_text(runs))]
    return Answer(_base_sentence(runs, scores), {"kind": "dots", "panels": panels}, tables)


def base_text(runs: Runs) -> str:
    """Return the base setting in words."""
    value = runs.base_value
    return (
        f"learning rate {value('lr'):g}, initialization × {value('init'):g}, "
        f"batch size {value('batch')}, normalizer {value('placement')} the activation, "
        f"{value('steps'):,} steps of {OPTIMIZERS.get(runs.optimizer, runs.optimizer)}"
    )


def _base_sentence(runs: Runs, scores: Mapping[str, Spread]) -> str:
    ordered = sorted(scores, key=lambda n: runs.score.rank_value(scores[n]["median"]), reverse=True)
    texts = [f"{name} {score_text(runs.score, scores[name])}" for name in ordered]
    diverged = [
        f"{name} in {seeds['diverged']} of {plural(seeds['n'], 'run')}"
        for name, seeds in scores.items()
        if seeds["diverged"]
    ]
    sentence = f"{runs.score.name.capitalize()} with the same settings: {join(texts, most=4)}."
    return sentence + (f" Diverged: {join(diverged)}." if diverged else "")


def _training_curve(record: Record) -> Curve | None:
    curve = record.get("curve") or {}
    return (curve["step"], curve["train_loss"]) if curve.get("step") else None


def _training(runs: Runs) -> Answer | str:
    groups = runs.at_base()
    panels = [panel("training loss", merge(groups, _training_curve), log=True)]
    if not panels[0]["series"]:
        return "no run at the base setting recorded its training loss."
    losses = {name: final(records, "train_loss") for name, records in groups.items()}
    figure = {"kind": "series", "x": {"title": "step"}, "panels": panels}
    return Answer(compare("Final training loss", losses), figure, [series_table("step", panels)])


def _placement(runs: Runs) -> Answer | str:
    records = sweep(runs, "placement")
    if not records:
        return "only one placement was run."
    groups = {
        (name, place): group
        for name, both in by_label(records).items()
        for place in ("before", "after")
        if (group := [r for r in both if r["cell"]["placement"] == place])
    }
    rows = [row(n, runs.score.spread(group), place) for (n, place), group in groups.items()]
    panels = [{**score_panel(runs.score, rows), "rows": rows}]
    named = {f"{name}, {place} the activation": group for (name, place), group in groups.items()}
    tables = [score_table(runs.score, named, "Placement")]
    return Answer(
        _placement_sentence(runs.score, groups), {"kind": "dots", "panels": panels}, tables
    )


def _placement_sentence(score: Score, groups: Mapping[tuple[str, str], Sequence[Record]]) -> str:
    texts = [
        f"{name} {score_text(score, score.spread(groups[name, 'before']))} before, "
        f"{score_text(score, score.spread(group))} after"
        for (name, place), group in groups.items()
        if place == "after" and (name, "before") in groups and name != "none"
    ]
    ending = f": {join(texts, most=3)}" if texts else " was measured on one side only"
    return f"{score.name.capitalize()} around the activation{ending}."


QUESTIONS = (
    Question(
        "base",
        "The same settings for all",
        "Every normalizer is trained with the same settings, data order and seeds. Dots are seeds' "
        "medians, lines their range; a run diverges when its loss stops being finite or exceeds "
        "1,000, and then counts as the worst result.",
        _base,
    ),
    Question(
        "training",
        "Training",
        "Loss of the mini-batches at the base setting: median over seeds and their range.",
        _training,
    ),
    Question(
        "placement",
        "Before or after the activation",
        "The normalizer in front of the activation function or behind it, all else equal.",
        _placement,
    ),
)
