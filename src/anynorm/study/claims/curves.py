"""Curves over training: merged over seeds, thinned, and averaged over the early steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from anynorm.study.claims.judge import spreads
from anynorm.study.claims.question import Table, ends, table
from anynorm.study.spread import Record, Spread, finite, spread

__all__ = [
    "EARLY",
    "Curve",
    "early",
    "early_errors",
    "early_values",
    "has_values",
    "merge",
    "panel",
    "per_layer_median",
    "probe",
    "series_table",
]

EARLY = 100
POINTS = 48
CHANGES = ("mean_shift", "log_std_shift", "wasserstein")


class Curve(NamedTuple):
    """One quantity of a run at its steps.

    If early steps were drawn at random, `weights` are the numbers of steps for which each value
    stands; see `anynorm.study.probes.schedule`.
    """

    steps: Sequence[float]
    values: Sequence[float | None]
    weights: Sequence[int] = ()


Pick = Callable[[Record], Curve | None]


def probe(part: str, key: str) -> Pick:
    """Return a function that picks one probed quantity of a run: its steps and its values.

    If a quantity is measured for every layer, the value is the median over layers. A change since
    the last measurement starts with the second measurement. If a run diverged before that, its
    curve is empty; if it finished before that, it has no curve.
    """

    def pick(record: Record) -> Curve | None:
        found = (record.get("probes") or {}).get(part) or {}
        steps, values = found.get("step"), found.get(key)
        if not steps or not values:
            return None
        first = 1 if key in CHANGES else 0
        # A record that was cut short may have columns of different lengths.
        count = min(len(steps), len(values))
        weights = found.get("weight") or ()
        if first >= count and record["status"] == "ok":
            return None
        return Curve(
            steps[first:count],
            per_layer_median(values[first:count]),
            weights[first:count] if len(weights) >= count else (),
        )

    return pick


def per_layer_median(values: Sequence[Any]) -> list[float | None]:
    """Return the median over layers of each step's list; plain numbers stay as they are."""
    return [_median(value) if isinstance(value, list) else value for value in values]


def _median(values: Sequence[float | None]) -> float | None:
    # A layer without a value (it has no such activation) is left out.
    known = [value for value in values if value is not None and math.isfinite(value)]
    return median(known) if known else None


def merge(
    groups: Mapping[str, Sequence[Record]],
    pick: Pick,
    *,
    higher_is_better: bool = False,
    points: int = POINTS,
) -> dict[str, dict[str, list[Any]]]:
    """Return each normalizer's median and range over seeds at every step that was measured.

    After a run diverged, it counts as the worst value. Otherwise the remaining runs would make the
    normalizer look better than it is.
    """
    merged = {}
    for name, records in groups.items():
        curves = [(record, curve) for record in records if (curve := pick(record))]
        if curves:
            merged[name] = _merge(curves, higher_is_better, points)
    return merged


def _merge(
    curves: Sequence[tuple[Record, Curve]], higher_is_better: bool, points: int
) -> dict[str, list[Any]]:
    steps = thin(sorted({step for _, curve in curves for step in curve.steps}), points)
    lookups = [
        (record, dict(zip(curve.steps, curve.values, strict=True))) for record, curve in curves
    ]
    merged: dict[str, list[Any]] = {"x": [], "median": [], "low": [], "high": []}
    for step in steps:
        values = [
            lookup.get(step)
            for record, lookup in lookups
            if step in lookup or _over(record, lookup, step)
        ]
        seeds = spread(values, higher_is_better=higher_is_better)
        merged["x"].append(step)
        for key in ("median", "low", "high"):
            merged[key].append(seeds[key])
    return merged


def _over(record: Record, lookup: Mapping[float, Any], step: float) -> bool:
    return record["status"] != "ok" and step > max(lookup, default=-math.inf)


def thin(values: Sequence[float], points: int) -> list[float]:
    """Keep at most `points` values, the first and the last among them.

    >>> thin([0, 1, 2, 3, 4, 5, 6], 3)
    [0, 3, 6]
    """
    if len(values) <= points:
        return list(values)
    scale = (len(values) - 1) / (points - 1)
    return [values[round(index * scale)] for index in range(points)]


def early_values(
    groups: Mapping[str, Sequence[Record]], pick: Pick
) -> dict[str, dict[int, float | None]]:
    """Return each run's mean over the first 100 steps, by normalizer and seed."""
    found = {
        name: {
            record["cell"]["seed"]: _early_mean(record, curve)
            for record in records
            if (curve := pick(record)) is not None
        }
        for name, records in groups.items()
    }
    return {name: values for name, values in found.items() if values}


def early(groups: Mapping[str, Sequence[Record]], pick: Pick) -> dict[str, Spread]:
    """Return the spread over seeds of each run's mean over the first 100 steps."""
    return spreads(early_values(groups, pick))


def early_errors(groups: Mapping[str, Sequence[Record]], pick: Pick) -> dict[str, float]:
    """Return the standard error of one run's early mean that comes from drawing steps.

    It is zero if every step was measured. The seeds draw different steps, so this error is part of
    the spread over seeds too.
    """
    found = {}
    for name, records in groups.items():
        curves = [curve for record in records if (curve := pick(record)) is not None]
        errors = [error for curve in curves if (error := _sampling_error(curve)) is not None]
        if errors:
            found[name] = math.hypot(*errors) / math.sqrt(len(errors))
    return found


def _early_mean(record: Record, curve: Curve) -> float | None:
    diverged_at = record.get("diverged_at")
    if record["status"] != "ok" and (diverged_at is None or diverged_at < EARLY):
        return None
    if curve.weights:
        return _weighted_mean(_drawn(curve))
    points = [(x, y) for x, y in zip(curve.steps, curve.values, strict=True) if x <= EARLY]
    known = [(step, value) for step, value in points if value is not None]
    return _mean_over_steps(known) if known and len(known) == len(points) else None


def _drawn(curve: Curve) -> list[tuple[int, float | None]]:
    """Return weight and value of each early step that was drawn, if steps were drawn."""
    pairs = zip(curve.weights, curve.values, strict=bool(curve.weights))
    return [(weight, value) for weight, value in pairs if weight]


def _weighted_mean(drawn: Sequence[tuple[int, float | None]]) -> float | None:
    known = [(weight, value) for weight, value in drawn if value is not None]
    if not known or len(known) < len(drawn):
        return None
    return sum(weight * value for weight, value in known) / sum(weight for weight, _ in known)


def _sampling_error(curve: Curve) -> float | None:
    """Estimate the error from differences of successive strata, which overstates it a little."""
    drawn = _drawn(curve)
    values = [value for _, value in drawn if value is not None]
    count = len(values)
    if count < 2 or count < len(drawn):
        return None
    unmeasured = 1 - count / sum(weight for weight, _ in drawn)
    distance = math.dist(values[1:], values[:-1])
    return finite(distance * math.sqrt(unmeasured / (2 * (count - 1) * count)))


def _mean_over_steps(points: Sequence[tuple[float, float]]) -> float:
    """The mean over the steps, not over the measurements, which need not be evenly spaced."""
    if len(points) == 1:
        return points[0][1]
    areas = [(x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points)]
    return sum(areas) / (points[-1][0] - points[0][0])


def panel(title: str, series: Mapping[str, Any], *, log: bool = False) -> dict[str, Any]:
    """Return one panel of a figure of curves."""
    return {"title": title, "log": log, "series": dict(series)}


def has_values(shown: Mapping[str, Any]) -> bool:
    """Whether a panel of curves has a value to draw."""
    return any(y is not None for curve in shown["series"].values() for y in curve["median"])


def series_table(x_title: str, panels: Sequence[Mapping[str, Any]]) -> Table:
    """Return the curves of all panels as one table, a row for each normalizer and x."""
    columns = ["normalizer", x_title]
    rows: dict[tuple[str, Any], list[Any]] = {}
    for index, shown in enumerate(panels):
        columns += [f"{shown['title']}: {key}" for key in ("median", "low", "high")]
        for name, curve in shown["series"].items():
            for at, x in enumerate(curve["x"]):
                row = rows.setdefault((name, x), [name, x])
                row += ["not measured"] * (2 + 3 * index - len(row))
                row += ends({key: curve[key][at] for key in ("median", "low", "high")})
    width = len(columns)
    filled = [row + ["not measured"] * (width - len(row)) for row in rows.values()]
    return table("Curves", columns, filled)
