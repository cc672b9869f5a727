"""The scores of runs as samples that can be compared, with what each held-out item gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anynorm.study.inference import Sample
from anynorm.study.spread import Record, Score

__all__ = ["items_of", "sample", "samples"]

Groups = Mapping[str, Sequence[Record]]


def samples(groups: Groups, scores: Mapping[str, Score]) -> dict[str, Sample]:
    """Return a sample for each normalizer by its score, in the unit of differences."""
    return {name: sample(name, records, scores[name]) for name, records in groups.items()}


def sample(name: str, records: Sequence[Record], score: Score) -> Sample:
    """Return the scores of some runs, with the outcome of each held-out item where it was kept."""
    return Sample(
        name,
        [score.outcome(score.value(record)) for record in records],
        [record["cell"]["seed"] for record in records],
        items_of(records, score),
    )


def items_of(records: Sequence[Record], score: Score) -> Any:
    """Return what each held-out item contributes in each finished run, of shape (runs, items).

    Records without items, such as those of runs that diverged, are left out.
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
