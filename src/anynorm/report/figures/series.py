"""Curves of every normalizer: the median as a line, the range as a band."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from anynorm.report.figures.style import Style, layout, log_axis, style
from anynorm.report.text import plot

__all__ = ["series"]

HEIGHTS = (300, 210, 180)  # of the panels of a figure with one, two and three of them


def series(figure: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Return a figure of curves, one panel above the other.

    Each trace carries its normalizer in ``meta``, by which the page's legend shows and hides it;
    with ``focus`` only those are shown at first.
    """
    panels = figure["panels"]
    data = [
        {
            **trace,
            "meta": {"series": labels.index(name)},
            "visible": name in figure.get("focus", [name]),
        }
        for index, panel in enumerate(panels)
        for name, curve in panel["series"].items()
        for trace in _traces(curve, style(name, labels), panel["log"], figure, index, name)
    ]
    data += [_level(panel, index) for index, panel in enumerate(panels) if "line" in panel]
    heights = [HEIGHTS[min(len(panels), len(HEIGHTS)) - 1]] * len(panels)
    axes = [{"x": _x_axis(figure, panel), "y": _y_axis(panel)} for panel in panels]
    return {"data": data, "layout": layout(panels, heights, axes)}


def _level(panel: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return a reference level as a dashed line over all steps of the curves."""
    suffix = str(index + 1) if index else ""
    steps = [x for curve in panel["series"].values() for x in curve["x"]]
    at, words = panel["line"]["at"], panel["line"]["words"]
    return {
        "type": "scatter",
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "name": plot(words),
        "x": [min(steps, default=0), max(steps, default=1)],
        "y": [at, at],
        "mode": "lines+text",
        "text": ["", plot(words)],
        "textposition": "top left",
        "line": {"color": "@muted", "dash": "dash", "width": 1.5},
        "hovertemplate": f"{plot(words)} %{{y:.3g}}",
    }


def _traces(
    curve: Mapping[str, Any],
    look: Style,
    log: bool,
    figure: Mapping[str, Any],
    index: int,
    name: str,
) -> Iterator[dict[str, Any]]:
    suffix = str(index + 1) if index else ""
    common = {"type": "scatter", "xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "name": plot(name)}
    yield {**common, **_band(curve, look, log)}
    yield {**common, **_line(curve, look, figure)}
    if lost := _lost(curve):
        yield {**common, **_cross(lost, look)}


def _band(curve: Mapping[str, Any], look: Style, log: bool) -> dict[str, Any]:
    """Return one closed polygon for each unbroken stretch of the range."""
    x: list[Any] = []
    y: list[Any] = []
    for stretch in _stretches(curve, log):
        x += [p[0] for p in stretch] + [p[0] for p in reversed(stretch)] + [None]
        y += [p[1] for p in stretch] + [p[2] for p in reversed(stretch)] + [None]
    return {
        "x": x,
        "y": y,
        "mode": "lines",
        "line": {"width": 0, "color": look["color"]},
        "fill": "toself",
        "fillcolor": f"{look['color']}/0.18",
        "hoverinfo": "skip",
    }


def _stretches(curve: Mapping[str, Any], log: bool) -> list[list[tuple[float, float, float]]]:
    stretches: list[list[tuple[float, float, float]]] = [[]]
    for x, low, high in zip(curve["x"], curve["low"], curve["high"], strict=True):
        if low is None or high is None or (log and low <= 0):
            stretches.append([])
        else:
            stretches[-1].append((x, low, high))
    return [stretch for stretch in stretches if stretch]


def _line(curve: Mapping[str, Any], look: Style, figure: Mapping[str, Any]) -> dict[str, Any]:
    ends = zip(curve["low"], curve["high"], strict=True)
    places = [_place(x, figure["x"]) for x in curve["x"]]
    return {
        "x": curve["x"],
        "y": curve["median"],
        "customdata": [
            f"{_range(*pair)}<br>{place}" for pair, place in zip(ends, places, strict=True)
        ],
        "mode": "lines+markers" if figure.get("markers") else "lines",
        "line": {"color": look["color"], "dash": look["dash"], "width": 2.25},
        "marker": {"color": look["color"], "symbol": look["symbol"], "size": 7},
        "hovertemplate": "%{y:.3g} %{customdata}",
    }


def _place(x: float, axis: Mapping[str, Any]) -> str:
    """Return the position of a point as text: the name of its layer, or the value on the axis.

    >>> _place(2, {"title": "layer, input to output", "names": ["conv 1", "linear 1"]})
    'linear 1'
    >>> _place(100, {"title": "step"})
    'step 100'
    """
    if names := axis.get("names"):
        return plot(names[round(x) - 1])
    words = plot(axis["title"].partition(",")[0].partition(" (")[0])
    return f"{words} {x:.4g}"


def _range(low: float | None, high: float | None) -> str:
    ends = ["diverged" if end is None else f"{end:.3g}" for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]"


def _lost(curve: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the last point of a curve that ends early because its runs diverged."""
    points = list(zip(curve["x"], curve["median"], strict=True))
    if not points or points[-1][1] is not None:
        return None
    known = [point for point in points if point[1] is not None]
    return known[-1] if known else None


def _cross(point: tuple[float, float], look: Style) -> dict[str, Any]:
    return {
        "x": [point[0]],
        "y": [point[1]],
        "mode": "markers",
        "marker": {"symbol": "x", "size": 10, "color": look["color"]},
        "hovertemplate": "most seeds diverged after this",
    }


def _x_axis(figure: Mapping[str, Any], panel: Mapping[str, Any]) -> dict[str, Any]:
    given = figure["x"]
    axis: dict[str, Any] = {"title": {"text": plot(given["title"]), "standoff": 8}}
    if given.get("log"):
        axis |= log_axis(x for curve in panel["series"].values() for x in curve["x"])
    if given.get("reversed"):
        axis["autorange"] = "reversed"
    if ticks := given.get("ticks"):
        axis |= {"tickmode": "array", "tickvals": ticks, "ticktext": [str(t) for t in ticks]}
    if names := given.get("names"):
        positions = list(range(1, len(names) + 1))
        axis |= {"tickvals": positions, "ticktext": [_short(name) for name in names]}
        axis |= {"tickmode": "array", "automargin": True}
    return axis


def _short(name: str, most: int = 16) -> str:
    return plot(name if len(name) <= most else f"{name[:5]}…{name[-10:]}")


def _y_axis(panel: Mapping[str, Any]) -> dict[str, Any]:
    if not panel["log"]:
        return {}
    curves = panel["series"].values()
    return log_axis(y for c in curves for key in ("low", "median", "high") for y in c[key])
