"""The tolerance of training to the learning rate and to the initialization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from anynorm.study.losses import guessing_loss, trains
from anynorm.study.selection import Runs, by_label, studies, sweep
from anynorm.study.spread import Record, Score

__all__ = ["Refinement", "points", "refinements", "tolerances", "widths"]


class Refinement(NamedTuple):
    """A run to add: `cell` with its learning rate replaced by `lr`."""

    label: str
    cell: dict[str, Any]
    lr: float


def points(records: Sequence[Record], factor: str, score: Score) -> dict[str, list[dict[str, Any]]]:
    """Return each normalizer's spread of the score at each value of `factor`, in order."""
    return {
        name: [{"value": value, **score.spread(group)} for value, group in groups]
        for name, groups in _by_value(records, factor).items()
    }


def _by_value(
    records: Sequence[Record], factor: str
) -> dict[str, list[tuple[float, list[Record]]]]:
    found = {}
    for name, group in by_label(records).items():
        groups: dict[float, list[Record]] = {}
        for record in group:
            groups.setdefault(record["cell"][factor], []).append(record)
        found[name] = [(value, groups[value]) for value in sorted(groups)]
    return found


def tolerances(runs: Runs, factor: str) -> dict[str, dict[str, Any]]:
    """Return for each normalizer the range of `factor` in which it trains well.

    It trains well at a value if its worst seed does not diverge and is close to the best score. The
    best is the highest score of a worst seed that any normalizer reaches in the sweep. The range is
    the longest one without a gap, from ``low`` to ``high``, with the ``decades`` between them. If
    it ends at the end of the grid, it is a lower bound (``open_low``, ``open_high``). If there is
    no such value, the ends are ``None``. ``trains`` is the range in which every seed trains at all.
    A normalizer that ran with only one value is left out.
    """
    records = sweep(runs, factor)
    found, best = points(records, factor, runs.score), _best(runs, records, factor)
    guessing = guessing_loss(runs)
    trained = {
        name: [sum(trains(record, guessing) for record in group) for _, group in groups]
        for name, groups in _by_value(records, factor).items()
    }
    return {
        name: _tolerance(row, trained[name], best, runs.score)
        for name, row in found.items()
        if len(row) > 1
    }


def _best(runs: Runs, records: Sequence[Record], factor: str) -> float:
    """Return the best score of a worst seed that any normalizer reaches."""
    found = points(records, factor, runs.score)
    worst = [runs.score.worst(point) for row in found.values() for point in row]
    reached = [value for value in worst if value is not None]
    return max(reached, key=runs.score.rank_value) if reached else math.nan


def _tolerance(
    row: Sequence[dict[str, Any]], trained: Sequence[int], best: float, score: Score
) -> dict[str, Any]:
    values = [point["value"] for point in row]
    all_train = [count == point["n"] for count, point in zip(trained, row, strict=True)]
    return {
        "points": [{**p, "trained": count} for p, count in zip(row, trained, strict=True)],
        "best": best,
        **_range(values, [score.close(score.worst(point), best) for point in row]),
        "trains": _range(values, all_train),
    }


def _range(values: Sequence[float], good: Sequence[bool]) -> dict[str, Any]:
    first, last = _longest(values, good)
    if first is None or last is None:
        return {"decades": None, "low": None, "high": None, "open_low": False, "open_high": False}
    return {
        "decades": math.log10(values[last] / values[first]),
        "low": values[first],
        "high": values[last],
        "open_low": first == 0,
        "open_high": last == len(values) - 1,
    }


def widths(runs: Runs, factor: str) -> dict[str, dict[int, float | None]]:
    """Return the ratio of the highest to the lowest usable value, by normalizer and seed.

    If an end is between two values that were tried, it is where the score crosses the limit, or in
    the middle if the run outside diverged. A seed without a usable value has None.
    """
    records = sweep(runs, factor)
    best = _best(runs, records, factor)
    found: dict[str, dict[int, float | None]] = {}
    for name, group in by_label(records).items():
        seeds: dict[int, list[Record]] = {}
        for record in group:
            seeds.setdefault(record["cell"]["seed"], []).append(record)
        # Seeds that were added later ran at only one value, so they have no range.
        most = max(map(len, seeds.values()))
        whole = {seed: own for seed, own in seeds.items() if 2 * len(own) > most}
        found[name] = {seed: _width(own, factor, best, runs.score) for seed, own in whole.items()}
    return found


def _width(records: Sequence[Record], factor: str, best: float, score: Score) -> float | None:
    ordered = sorted(records, key=lambda record: record["cell"][factor])
    values = [float(record["cell"][factor]) for record in ordered]
    scores = [score.value(record) for record in ordered]
    first, last = _longest(values, [score.close(value, best) for value in scores])
    if first is None or last is None:
        return None
    low, high = values[first], values[last]
    if first:
        low *= (values[first - 1] / low) ** _share(scores[first], scores[first - 1], best, score)
    if last < len(values) - 1:
        high *= (values[last + 1] / high) ** _share(scores[last], scores[last + 1], best, score)
    return high / low


def _share(good: float | None, bad: float | None, best: float, score: Score) -> float:
    """Return where between two values the score crosses the limit, from 0 to 1."""
    if good is None or bad is None:
        return 0.5
    levels = [_level(value, score) for value in (good, score.limit(best), bad)]
    return min(1.0, max(0.0, (levels[0] - levels[1]) / (levels[0] - levels[2])))


def _level(value: float, score: Score) -> float:
    return value if score.higher_is_better else -math.log(max(value, 1e-300))


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
    """Return the runs that bisect the edges of every normalizer's usable learning rates.

    Between the last usable learning rate and the next one, the geometric mean is added, with the
    seeds of the last usable one, until the two are `finest` decades apart.

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
        # The factor allows for the rounding of the grid's values (0.3 for 10**-0.5).
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
