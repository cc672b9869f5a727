"""Why a cell of a table has no number: diverged, not measured, or not applicable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Missing", "explained"]


class Missing(NamedTuple):
    """A cell without a number: the reason, and whether it is shown or a tooltip."""

    reason: str
    shown: bool


DIVERGED = Missing("diverged", shown=True)
NOWHERE = Missing("nowhere", shown=True)
NOT_MEASURED = Missing("not measured", shown=False)
NOT_APPLICABLE = Missing("not applicable", shown=False)
ENDS = ("median", "low", "high")
# Columns of a range of usable values, and of ratios to the model without normalization.
RANGE = ("decades", "fold", "from", "to")
RATIOS = ("none / normalizer", "lowest ratio", "highest ratio")


def explained(table: Mapping[str, Any], figure: Mapping[str, Any]) -> list[list[Any]]:
    """Return a claim's table with a reason in every cell that has no value.

    >>> table = {"columns": ["normalizer", "seeds", "median"], "rows": [["none", 3, None]]}
    >>> explained(table, {})[0][2].reason
    'diverged'
    """
    lost = _diverged_points(figure)
    columns = table["columns"]
    return [
        [
            _reason(columns, row, place, lost) if value is None else value
            for place, value in enumerate(row)
        ]
        for row in table["rows"]
    ]


def _reason(
    columns: Sequence[str], row: Sequence[Any], place: int, lost: set[tuple[Any, ...]]
) -> Missing:
    column = columns[place]
    if column in RANGE:
        return NOWHERE
    if column in RATIOS:
        return NOT_APPLICABLE
    if (column, *row[:2]) in lost or _has_runs(columns, row, column):
        return DIVERGED
    return NOT_MEASURED


def _has_runs(columns: Sequence[str], row: Sequence[Any], column: str) -> bool:
    """Whether a median or an end of a range is from runs, so that it is missing by divergence."""
    quantity, _, key = column.rpartition(": ")
    if key not in ENDS:
        return False
    counts = [f"{quantity}: seeds", "seeds"]
    known = [row[columns.index(name)] for name in counts if name in columns]
    return bool(known) and bool(known[0])


def _diverged_points(figure: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """Return column, normalizer and x of every point of a curve that is missing by divergence."""
    if figure.get("kind") != "series":
        return set()
    return {
        (f"{panel['title']}: {key}", name, x)
        for panel in figure["panels"]
        for name, curve in panel["series"].items()
        if any(value is not None for value in curve["median"])
        for key in ENDS
        for x, value in zip(curve["x"], curve[key], strict=True)
        if value is None
    }
