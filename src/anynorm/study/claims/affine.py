"""γ and β: the mean and standard deviation of a unit, and the result without γ and β."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from anynorm.study.claims.curves import panel, thin
from anynorm.study.claims.intervals import number_cells
from anynorm.study.claims.outcome import row, score_panel, score_table
from anynorm.study.claims.question import Answer, Question, Table, table
from anynorm.study.inference import Comparison
from anynorm.study.samples import compare_scores
from anynorm.study.selection import Runs
from anynorm.study.spread import Record, Score, Spread, final
from anynorm.study.wording import comparison_text, join, number, plural, score_text

__all__ = ["QUESTIONS"]

POINTS = 48
CLOSE = 0.01  # the largest error of a mean or a deviation that counts as equal
# What is measured, and which parameter it should equal.
MOMENTS = {"mean": "beta", "deviation": "gamma"}
WORDS = {"mean": "mean of the output against β", "deviation": "deviation against |γ|"}


NOT_MEASURED = (
    "no run of batch norm at the base setting was probed after training. Probes are on by default: "
    "leave out --no-probes."
)


def measured(runs: Runs, part: str) -> dict[str, list[Mapping[str, Any]]]:
    """Return the complete results of a probe after training, of the runs at the base setting."""
    groups = {
        name: [(record.get("probes") or {}).get(part) for record in records]
        for name, records in runs.at_base().items()
    }
    whole = {
        name: [one for one in found if one and _is_whole(one, part)]
        for name, found in groups.items()
    }
    return {name: found for name, found in whole.items() if found}


# The columns that each probe has for every layer. A truncated record lacks some of them.
BY_LAYER = {
    "affine": ("mean", "deviation", "beta", "gamma"),
    "importance": ("channels", "gamma", "within"),
}
WAYS = ("by_layer", "overall")
CHOICES = ("smallest", "random", "largest")


def _is_whole(found: Mapping[str, Any], part: str) -> bool:
    count = len(found.get("layers") or ())
    columns = [found.get(key) or () for key in BY_LAYER[part]]
    if not count or any(len(column) != count for column in columns):
        return False
    if part == "affine":
        return all(len(set(map(len, rows))) == 1 for rows in zip(*columns, strict=True))
    losses = [(found.get(way) or {}).get(choice) or () for way in WAYS for choice in CHOICES]
    shares = found.get("shares") or ()
    return bool(shares) and "across" in found and all(len(row) == len(shares) for row in losses)


def _moments(runs: Runs) -> Answer | str:
    groups = measured(runs, "affine")
    if not groups:
        return NOT_MEASURED
    panels = [
        panel(WORDS[key], {name: _curve(found[0], key) for name, found in groups.items()})
        for key in MOMENTS
    ]
    figure = {"kind": "series", "x": {"title": "β or |γ|"}, "panels": panels, "markers": True}
    rows = [row for name, found in groups.items() for row in _agreement(name, found)]
    sentence = f"After training, {join([_agreement_text(*item) for item in groups.items()])}."
    columns = ["normalizer", "quantity", "seeds", "channels", "correlation", "largest error"]
    errors = [_error(found, key)[0] for found in groups.values() for key in MOMENTS]
    return Answer(
        sentence,
        figure,
        [table("Output of a unit", columns, rows)],
        status="shown" if max(errors) < CLOSE else "contradicted",
        statement="After batch norm the output of a unit has mean β and standard deviation |γ|.",
    )


def _curve(found: Mapping[str, Any], key: str) -> dict[str, list[float]]:
    """Return the measured value over the parameter, of a selection of one run's channels."""
    pairs = sorted(zip(*_both(found, key), strict=True))
    kept = [pairs[round(index)] for index in thin(range(len(pairs)), POINTS)]
    x, y = ([pair[end] for pair in kept] for end in (0, 1))
    return {"x": x, "median": y, "low": y, "high": y}


def _both(found: Mapping[str, Any], key: str) -> tuple[list[float], list[float]]:
    """Return the parameters and the measured values of all channels."""
    return [*chain(*found[MOMENTS[key]])], [*chain(*found[key])]


def _agreement(name: str, runs: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for key in MOMENTS:
        worst, correlation = _error(runs, key)
        count = sum(map(len, runs[0][key]))
        yield [name, WORDS[key], len(runs), count, correlation, worst]


def _error(runs: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float | None]:
    """Return the largest error over all seeds, and the smallest correlation."""
    errors, correlations = [], []
    for found in runs:
        expected, seen = map(np.array, _both(found, key))
        errors.append(float(np.abs(expected - seen).max()))
        if expected.std() > 0 and seen.std() > 0:
            correlations.append(float(np.corrcoef(expected, seen)[0, 1]))
    return max(errors), min(correlations, default=None)


def _agreement_text(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    mean, deviation = (_error(runs, key)[0] for key in MOMENTS)
    count = plural(sum(map(len, runs[0]["mean"])), "unit")
    return (
        f"the outputs of {count} of {name} have mean β (largest error {number(mean)}) and "
        f"standard deviation |γ| (largest error {number(deviation)})"
    )


def _fixed(runs: Runs) -> Answer | str:
    arms = _arms(runs)
    if not arms:
        return "batch norm was not trained with γ and β fixed."
    name, fixed = arms
    scores = {label: runs.score.spread(records) for label, records in arms.items()}
    losses = {label: final(records, "train_loss") for label, records in arms.items()}
    panels = [
        {**score_panel(runs.score, []), "rows": [row(*item) for item in scores.items()]},
        {
            "title": "training loss",
            "log": True,
            "rows": [row(*item) for item in losses.items()],
        },
    ]
    [found] = compare_scores(arms, name, runs.score)
    tables = [score_table(runs.score, arms, "γ and β"), _comparison_table(found)]
    sentence = (
        f"{_fixed_text(found, runs.score)} {_both_text(scores, runs.score)} Final training loss: "
        f"{name} {number(losses[name]['median'])}, {fixed} {number(losses[fixed]['median'])}."
    )
    words = {"harmful": "shown", "better": "contradicted", "equivalent": "contradicted"}
    return Answer(
        sentence,
        {"kind": "dots", "panels": panels},
        tables,
        status=words.get(found.answer, "cannot tell"),
        statement="Batch norm is worse without γ and β.",
        comparisons=[found.to_dict()],
    )


def _arms(runs: Runs) -> dict[str, list[Record]]:
    """Return a normalizer's runs with γ and β, and with both fixed; empty without the latter."""
    fixed = {
        name: records
        for name, records in runs.controls_at().items()
        if not records[0]["cell"].get("affine", True) and not records[0]["cell"].get("noise")
    }
    base = runs.at_base()
    for name, records in fixed.items():
        own = next((label for label in base if name == f"{label}, no γ β"), None)
        if own is not None:
            return {own: base[own], name: records}
    return {}


def _fixed_text(found: Comparison, score: Score) -> str:
    words = {
        "harmful": "The result is worse with γ = 1 and β = 0 fixed",
        "better": "The result is better with γ = 1 and β = 0 fixed",
        "equivalent": "The result is equivalent with γ = 1 and β = 0 fixed",
        "cannot tell": "The seeds do not tell whether γ and β matter",
    }[found.answer]
    return f"{words}: {comparison_text(found, score)}."


def _both_text(scores: Mapping[str, Spread], score: Score) -> str:
    texts = [f"{name} {score_text(score, seeds)}" for name, seeds in scores.items()]
    return f"{score.name.capitalize()}: {join(texts)}."


def _comparison_table(found: Comparison) -> Table:
    columns = ["arm", "compared with", "answer", "difference", "low", "high", "test"]
    values = [found.a, found.b, found.answer, *number_cells(found), found.test]
    return table("Comparison", columns, [values])


QUESTIONS = (
    Question(
        "affine-moments",
        "What are γ and β?",
        "In train mode, batch norm gives every unit the mean β and the standard deviation |γ|, "
        "whatever the layers before it do. After training, the mean and standard deviation of at "
        "most 400 units of a model are measured on one batch of training data, and compared with "
        "each unit's γ and β; curves show one run. If the variance of the input is not much larger "
        "than ε, the standard deviation is smaller than |γ|.",
        _moments,
    ),
    Question(
        "affine-fixed",
        "What is lost without γ and β?",
        "Batch norm at the base setting, once with γ and β learned and once with γ = 1 and β = 0 "
        "fixed. Differences are fixed minus learned.",
        _fixed,
    ),
)
