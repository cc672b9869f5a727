"""One row for each normalizer: the median as a mark, the range as a line, the seeds as dots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.figures.style import Style, layout, log_axis, style
from anynorm.report.text import plot, wrapped

__all__ = ["dots"]

MARKS = ("circle", "diamond-open", "square-open")
ROW = 30


def dots(figure: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Return a figure of rows; several values of one normalizer are below each other."""
    panels = figure["panels"]
    data = [
        trace
        for index, panel in enumerate(panels)
        for row in panel["rows"]
        for trace in _traces(panel, row, _position(panel, row), index, labels)
    ]
    heights = [12 + len(_names(panel)) * max(ROW, 16 * len(_marks(panel))) for panel in panels]
    axes = [{"x": _x_axis(panel), "y": _y_axis(panel)} for panel in panels]
    return {"data": data, "layout": layout(panels, heights, axes)}


def _names(panel: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["label"] for row in panel["rows"]))


def _marks(panel: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["mark"] for row in panel["rows"]))


def _position(panel: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    marks = _marks(panel)
    offset = (marks.index(row["mark"]) + 0.5) / len(marks) - 0.5
    return _names(panel).index(row["label"]) + 0.8 * offset


def _traces(
    panel: Mapping[str, Any],
    row: Mapping[str, Any],
    position: float,
    index: int,
    labels: Sequence[str],
) -> list[dict[str, Any]]:
    suffix = str(index + 1) if index else ""
    look = style(row["label"], labels)
    common = {
        "type": "scatter",
        "mode": "markers",
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "name": plot(row["label"]),
    }
    values = [_scaled(panel, value) for value in row["values"] if value is not None]
    seeds = {
        "x": values,
        "y": [position] * len(values),
        "marker": {"color": f"{look['color']}/0.45", "size": 6},
        # The median often covers the dot of a seed; so its text names all seeds.
        "hoverinfo": "x" if row["median"] is None else "skip",
    }
    found = [{**common, **seeds}]
    if row["median"] is not None:
        found.append({**common, **_median(panel, row, position, look)})
    return found


def _scaled(panel: Mapping[str, Any], value: float) -> float:
    return 100 * value if panel.get("percent") else value


def _median(
    panel: Mapping[str, Any], row: Mapping[str, Any], position: float, look: Style
) -> dict[str, Any]:
    middle = _scaled(panel, row["median"])
    known = [_scaled(panel, value) for value in row["values"] if value is not None]
    color = look["color"]
    ends = [_scaled(panel, row[key]) if row[key] is not None else None for key in ("low", "high")]
    return {
        "x": [middle],
        "y": [position],
        "marker": {
            "color": color,
            "size": 11,
            "symbol": _symbol(panel, row, look),
            "line": {"width": 2, "color": color},
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [max(known) - middle],
            "arrayminus": [middle - min(known)],
            "color": color,
            "thickness": 2.5,
            "width": 0,
        },
        "hovertemplate": f"%{{x:.4g}} {_ends(ends)}<br>seeds: {_listed(known)}",
    }


def _symbol(panel: Mapping[str, Any], row: Mapping[str, Any], look: Style) -> str:
    """Return a symbol for each of several values of a normalizer; for one value, its own."""
    marks = _marks(panel)
    return MARKS[marks.index(row["mark"]) % len(MARKS)] if len(marks) > 1 else str(look["symbol"])


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _ends(ends: Sequence[float | None]) -> str:
    low, high = ("diverged" if end is None else f"{end:.4g}" for end in ends)
    return f"[{low}, {high}]"


def _x_axis(panel: Mapping[str, Any]) -> dict[str, Any]:
    values = [value for row in panel["rows"] for value in row["values"]]
    axis = log_axis(values) if panel["log"] else {}
    return {**axis, "ticksuffix": "%" if panel.get("percent") else ""}


def _y_axis(panel: Mapping[str, Any]) -> dict[str, Any]:
    names = _names(panel)
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [_tick(name, panel["rows"]) for name in names],
        "range": [len(names) - 0.4, -0.6],
        "ticks": "",
        "fixedrange": True,
    }


def _tick(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of a normalizer, and how many of its runs diverged."""
    worst = max((row for row in rows if row["label"] == name), key=lambda row: row["diverged"])
    if not worst["diverged"]:
        return wrapped(name)
    return f"{wrapped(name)}<br><i>{worst['diverged']}/{worst['n']} diverged</i>"
