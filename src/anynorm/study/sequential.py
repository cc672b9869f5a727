"""Add seeds where they can still change an answer, without a higher error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from anynorm.study.cell import Cell
from anynorm.study.chosen import at_own_rate
from anynorm.study.selection import studies
from anynorm.study.spread import Record
from anynorm.study.verdict import decide

__all__ = ["could_tell", "looks", "open_comparisons", "seeds_to_add"]

_GROWTH, _MOST_SEEDS = 1.6, 32
# A forecast from few seeds is rough: it counts only if it exceeds the maximum by this factor.
_ROUGH = 3


def looks(seeds: int) -> list[int]:
    """Return the numbers of seeds at which a growing study is evaluated, starting with `seeds`.

    The list is fixed before the first run, and the allowed error is divided among its looks. So the
    total error rate is kept however early the study stops.

    >>> looks(3)
    [3, 5, 8, 13, 21, 32]
    """
    found = [seeds]
    while found[-1] < _MOST_SEEDS:
        found.append(min(_MOST_SEEDS, max(found[-1] + 2, round(_GROWTH * found[-1]))))
    return found


def open_comparisons(
    records: Sequence[Record], margin: float | None, count: int
) -> list[dict[str, Any]]:
    """Return the comparisons that cannot tell yet."""
    [runs] = studies(records, margin)
    found = decide(runs, looks=count)["comparisons"]
    return [c for c in found if c["answer"] == "cannot tell"]


def could_tell(comparison: dict[str, Any]) -> bool:
    """Whether more seeds may decide a comparison that cannot tell yet."""
    # Without an interval, as with diverged runs, the number of seeds needed is unknown.
    needed = comparison["seeds"]
    return comparison["low"] is None or (needed is not None and needed <= _ROUGH * _MOST_SEEDS)


def seeds_to_add(
    records: Sequence[Record], comparisons: Sequence[dict[str, Any]], seeds: int
) -> list[Cell]:
    """Return the cells that give each of the compared normalizers `seeds` seeds.

    Each normalizer keeps the learning rate that was chosen for it.
    """
    [runs] = studies(records)
    names = dict.fromkeys(name for c in comparisons for name in (c["a"], c["b"]))
    if not names:
        return []
    groups = at_own_rate(runs)
    cells = [Cell.from_dict(groups[name][0]["cell"]) for name in names]
    first = min(record["cell"]["seed"] for record in runs.records)
    present = {name: {record["cell"]["seed"] for record in groups[name]} for name in names}
    return [
        replace(cell, seed=seed, probes=False)
        for name, cell in zip(names, cells, strict=True)
        for seed in range(first, first + seeds)
        if seed not in present[name]
    ]
