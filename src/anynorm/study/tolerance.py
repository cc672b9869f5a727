"""How far a learning rate or an initialization may be off before training suffers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from anynorm.study.selection import Runs, by_label, studies, sweep
from anynorm.study.spread import Record, Score

__all__ = ["Refinement", "points", "refinements", "tolerances"]


class Refinement(NamedTuple):
    """A run to add: `cell` with its learning rate replaced by `lr`."""

    label: str
    cell: dict[str, Any]
    lr: float


def points(records: Sequence[Record], factor: str, score: Score) -> dict[str, list[dict[str, Any]]]:
    """Return each normalizer's spread of the score at each value of `factor`, in order."""
    return {name: _points(group, factor, score) for name, group in by_label(records).items()}


def _points(records: Sequence[Record], factor: str, score: Score) -> list[dict[str, Any]]:
    groups: dict[float, list[Record]] = {}
    for record in records:
        groups.setdefault(record["cell"][factor], []).append(record)
    return [{"value": value, **score.spread(groups[value])} for value in sorted(groups)]


def tolerances(runs: Runs, factor: str) -> dict[str, dict[str, Any]]:
    """Return for each normalizer the decades of `factor` over which training holds.

    It holds at a value where the worst of the seeds does not diverge and stays within the
    score's margin of the best: the highest worst-of-seeds score that any normalizer reaches in
    the sweep. The decades are those of the longest unbroken interval of such values; where it
    ends at the end of the grid they are a lower bound (``open_low``, ``open_high``). A
    normalizer that holds nowhere has ``decades`` of ``None``. Nothing measured gives ``{}``.
    """
    found = points(sweep(runs, factor), factor, runs.score)
    worst = [runs.score.worst(point) for row in found.values() for point in row]
    reached = [value for value in worst if value is not None]
    best = max(reached, key=runs.score.rank_value) if reached else math.nan
    return {name: _tolerance(row, best, runs.score) for name, row in found.items()}


def _tolerance(row: list[dict[str, Any]], best: float, score: Score) -> dict[str, Any]:
    good = [score.close(score.worst(point), best) for point in row]
    first, last = _longest([point["value"] for point in row], good)
    if first is None or last is None:
        return {"points": row, "best": best, "decades": None, "low": None, "high": None}
    low, high = row[first]["value"], row[last]["value"]
    return {
        "points": row,
        "best": best,
        "decades": math.log10(high / low),
        "low": low,
        "high": high,
        "open_low": first == 0,
        "open_high": last == len(row) - 1,
    }


def _longest(values: Sequence[float], good: Sequence[bool]) -> tuple[int | None, int | None]:
    """Return the first and last index of the longest unbroken interval of good values."""
    intervals: list[tuple[int, int]] = []
    for index, holds in enumerate(good):
        if holds and index and good[index - 1]:
            intervals[-1] = (intervals[-1][0], index)
        elif holds:
            intervals.append((index, index))
    if not intervals:
        return None, None
    return max(intervals, key=lambda ends: values[ends[1]] / values[ends[0]])


def refinements(records: Sequence[Record], *, finest: float = 0.25) -> list[Refinement]:
    """Return the runs that bisect the edges of every normalizer's learning-rate tolerance.

    Between the last learning rate that holds and the first that does not, the geometric middle
    is added with the seeds of the last that holds, until the two are `finest` decades apart.

    >>> refinements([])
    []
    """
    found: list[Refinement] = []
    for runs in studies(records):
        lr_runs = by_label(sweep(runs, "lr"))
        for name, tolerance in tolerances(runs, "lr").items():
            found += _bisections(name, tolerance, lr_runs[name], finest)
    return found


def _bisections(
    name: str, tolerance: dict[str, Any], records: Sequence[Record], finest: float
) -> list[Refinement]:
    values = [point["value"] for point in tolerance["points"]]
    return [
        Refinement(name, {**record["cell"], "lr": lr}, lr)
        for good, bad in _edges(values, tolerance)
        # The grid's own values are rounded (0.3 for 10**-0.5): leave room for that.
        if abs(math.log10(bad / good)) > 1.1 * finest
        for lr in [float(f"{math.sqrt(good * bad):.2g}")]
        for record in records
        if record["cell"]["lr"] == good
    ]


def _edges(values: Sequence[float], tolerance: dict[str, Any]) -> list[tuple[float, float]]:
    if tolerance["decades"] is None:
        return []
    first, last = values.index(tolerance["low"]), values.index(tolerance["high"])
    edges = []
    if first > 0:
        edges.append((values[first], values[first - 1]))
    if last < len(values) - 1:
        edges.append((values[last], values[last + 1]))
    return edges
