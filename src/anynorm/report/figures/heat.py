"""Learning rate or initialization by normalizer: the worst seed's score in every cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.figures.style import layout
from anynorm.report.text import plot, wrapped

__all__ = ["heat"]

ROW = 34
# The region where every seed trains, and, drawn over it, that where every seed trains well.
OUTLINES = {
    "trains": {"color": "@muted", "width": 1.5, "dash": "dot"},
    "holds": {"color": "@accent", "width": 2.5},
}


def heat(figure: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Return a heat map; a cross marks a diverged seed, an outline what is within tolerance."""
    names = [name for name in labels if name in figure["rows"]]
    columns = _columns(figure)
    grid = [_cells(figure["rows"][name]["points"], columns) for name in names]
    data = [_map(figure, grid), _crosses(grid)]
    panel = {"title": figure["unit"]}
    made = layout([panel], [ROW * len(names)], [{"x": _x(figure, columns), "y": _y(names)}])
    made["shapes"] = [
        shape
        for position, name in enumerate(names)
        for key, line in OUTLINES.items()
        if (shape := _outline(figure["rows"][name].get(key), columns, position, line))
    ]
    return {"data": data, "layout": {**made, "plot_bgcolor": "@blank"}}


def _columns(figure: Mapping[str, Any]) -> list[float]:
    """Return the values of nearly all normalizers, without those from the bisection of an edge."""
    rows = [[point["value"] for point in row["points"]] for row in figure["rows"].values()]
    values = sorted({value for row in rows for value in row})
    return [value for value in values if 4 * sum(value in row for row in rows) > 3 * len(rows)]


def _cells(points: Sequence[Mapping[str, Any]], columns: Sequence[float]) -> list[Any]:
    found = {point["value"]: point for point in points}
    return [found.get(value) for value in columns]


def _map(figure: Mapping[str, Any], grid: Sequence[Sequence[Any]]) -> dict[str, Any]:
    higher = figure["higher_is_better"]
    return {
        "type": "heatmap",
        "z": [[_level(point, higher) for point in row] for row in grid],
        "text": [[_shown(point, figure["percent"]) for point in row] for row in grid],
        "texttemplate": "%{text}",
        "textfont": {"size": 12},
        "customdata": [[_hover(point, figure["percent"]) for point in row] for row in grid],
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "colorscale": [[0, "@scale-low"], [1, "@scale-high"]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }


def _level(point: Mapping[str, Any] | None, higher_is_better: bool) -> float | None:
    if point is None or point["worst"] is None:
        return None
    worst = float(point["worst"])
    return worst if higher_is_better else -math.log10(max(worst, 1e-30))


def _shown(point: Mapping[str, Any] | None, percent: bool) -> str:
    if point is None or point["worst"] is None:
        return ""
    return f"{100 * point['worst']:.0f}" if percent else f"{point['worst']:.2g}"


def _hover(point: Mapping[str, Any] | None, percent: bool) -> str:
    if point is None:
        return ""
    scale = 100 if percent else 1
    keys = ("median", "low", "high")
    texts = ["diverged" if point[k] is None else f"{scale * point[k]:.3g}" for k in keys]
    seeds = f"{point['diverged']} of {point['n']} seeds diverged"
    if "trained" in point:
        seeds += f"<br>{point['trained']} of {point['n']} seeds train at all"
    return f"{texts[0]} [{texts[1]}, {texts[2]}]<br>{seeds}"


def _crosses(grid: Sequence[Sequence[Any]]) -> dict[str, Any]:
    lost = [
        (x, y, point)
        for y, row in enumerate(grid)
        for x, point in enumerate(row)
        if point is not None and point["worst"] is None
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x for x, _, _ in lost],
        "y": [y for _, y, _ in lost],
        "marker": {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": "@muted"}},
        "customdata": [
            f"{point['diverged']} of {point['n']} seeds diverged" for _, _, point in lost
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _outline(
    holds: Sequence[float | None] | None,
    columns: Sequence[float],
    position: int,
    line: Mapping[str, Any],
) -> dict[str, Any] | None:
    low, high = holds or (None, None)
    if low is None or high is None:
        return None
    inside = [index for index, value in enumerate(columns) if low <= value <= high]
    if not inside:
        return None
    return {
        "type": "rect",
        "x0": inside[0] - 0.47,
        "x1": inside[-1] + 0.47,
        "y0": position - 0.45,
        "y1": position + 0.45,
        "line": dict(line),
    }


def _x(figure: Mapping[str, Any], columns: Sequence[float]) -> dict[str, Any]:
    return {
        "title": {"text": plot(figure["x"]["title"]), "standoff": 8},
        "tickmode": "array",
        "tickvals": list(range(len(columns))),
        "ticktext": [f"{value:g}" for value in columns],
        "range": [-0.5, len(columns) - 0.5],
        "showgrid": False,
        "ticks": "",
        "fixedrange": True,
    }


def _y(names: Sequence[str]) -> dict[str, Any]:
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [wrapped(name) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "ticks": "",
        "fixedrange": True,
    }
