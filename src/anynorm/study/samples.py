"""The scores of runs as samples, with the results of held-out items, and their comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from anynorm.study.inference import Comparison, Sample, against_control
from anynorm.study.spread import Record, Score

__all__ = ["compare_scores", "in_shown_unit", "items_of", "sample", "samples"]

Groups = Mapping[str, Sequence[Record]]


def samples(groups: Groups, scores: Mapping[str, Score]) -> dict[str, Sample]:
    """Return a sample for each normalizer by its score, in the unit of differences."""
    return {name: sample(name, records, scores[name]) for name, records in groups.items()}


def sample(name: str, records: Sequence[Record], score: Score) -> Sample:
    """Return the scores of some runs, with the outcomes of held-out items if they were kept."""
    return Sample(
        name,
        [score.outcome(score.value(record)) for record in records],
        [record["cell"]["seed"] for record in records],
        items_of(records, score),
    )


def compare_scores(groups: Groups, control: str, score: Score) -> list[Comparison]:
    """Compare the score of each group of runs with that of `control`, in points or per cent."""
    found = samples(groups, dict.fromkeys(groups, score))
    reference = found.pop(control)
    others = list(found.values())
    compared = against_control(
        reference, others, quantity=f"{score.name}, {score.unit}", margin=score.equal_within
    )
    return [in_shown_unit(one, score) for one in compared]


def in_shown_unit(found: Comparison, score: Score) -> Comparison:
    """Return a comparison with its differences in the reported unit; see `Score.shown`."""
    return replace(
        found,
        difference=score.shown(found.difference),
        low=score.shown(found.low),
        high=score.shown(found.high),
    )


def items_of(records: Sequence[Record], score: Score) -> Any:
    """Return the contribution of each held-out item in each finished run, of shape (runs, items).

    Records without items, such as those of diverged runs, are left out.
    """
    kept = [row for record in records if (row := (record.get("items") or {}).get(score.key))]
    if not kept or len({len(row) for row in kept}) != 1:
        return None
    table = np.array([[float(item) for item in row] for row in kept])
    if score.higher_is_better:
        return 100 * table
    # To first order, the logarithm of a mean is the mean of these.
    means = np.maximum(table.mean(axis=1, keepdims=True), 1e-12)
    return -100 * (np.log(means) + table / means - 1)
