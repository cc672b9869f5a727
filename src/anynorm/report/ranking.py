"""The ranking as a table, the same on the page and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["cells", "columns"]

NOT_MEASURED = "not measured"
Entry = Mapping[str, Any]


def columns(entries: Sequence[Entry], score: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns of `cells`.

    If there is no model without normalization, costs are absolute.
    """
    relative = any(entry["label"] == "none" for entry in entries)
    return [
        "rank",
        "normalizer",
        score["name"] + (", %" if score["percent"] else ""),
        "learning rate",
        "usable learning rates",
        "usable initial scales",
        "error at small batch",
        "time × none" if relative else "seconds per step",
        "memory × none" if relative else "bytes for backward",
    ]


def cells(entry: Entry, percent: bool) -> list[str]:
    """Return the row of one normalizer for `columns`, as text."""
    return [
        str(entry["rank"]),
        entry["label"],
        spread(entry["score"], percent),
        f"{entry['lr']:g}",
        _text(entry["lr_tolerance"]),
        _text(entry["init_tolerance"]),
        _small_batch(entry["small_batch"], percent),
        _ratio(entry["time"]),
        _ratio(entry["memory"]),
    ]


def spread(seeds: Mapping[str, Any], percent: bool) -> str:
    """Return a median with the range of its seeds.

    >>> spread({"n": 2, "median": 0.5, "low": None, "high": 0.75}, percent=True)
    '50.0 [diverged, 75.0]'
    """
    texts = [_number(seeds[key], percent) for key in ("median", "low", "high")]
    if texts[1] == texts[2] == "diverged":
        return "diverged"
    if seeds["n"] == 1:
        return texts[0]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "diverged"
    return f"{100 * value:.1f}" if percent else f"{value:.3g}"


def _text(tolerance: Mapping[str, Any] | None) -> str:
    return NOT_MEASURED if tolerance is None else str(tolerance["text"])


def _small_batch(point: Mapping[str, Any] | None, percent: bool) -> str:
    if point is None:
        return NOT_MEASURED
    unit = " points" if percent else "%"
    if point["median"] is None:
        return f"diverged at {point['batch']}"
    # Adding zero turns the negative zero that rounding leaves into a plain one.
    change = f"{round(point['median'], 1) + 0.0:+.1f}".replace("-", "−")
    return f"{change}{unit} at {point['batch']}"


def _ratio(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.2g}"
