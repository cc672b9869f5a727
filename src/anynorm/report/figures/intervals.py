"""Differences with their intervals: a zero line, the margin as a band, the answer in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from anynorm.report.figures.style import layout, style
from anynorm.report.text import plot, wrapped

__all__ = ["intervals"]

ROW = 34
ANSWERS = 92  # pixels at the right for the answers in words
COLORS = {"better": "@good", "harmful": "@bad", "equivalent": "@ink"}

Row = Mapping[str, Any]
Ends = tuple[float, float]


def intervals(figure: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Return a figure of intervals, with a panel for each reference of comparisons.

    An interval without a limit ends in an arrow at the edge of the panel.
    """
    panels = figure["panels"]
    spans = [_span(panel) for panel in panels]
    data = [
        trace
        for index, (panel, span) in enumerate(zip(panels, spans, strict=True))
        for place, row in enumerate(panel["rows"])
        for trace in _traces(row, place, span, index, labels)
    ]
    axes = [
        {"x": _x_axis(span), "y": _y_axis(panel)} for panel, span in zip(panels, spans, strict=True)
    ]
    made = layout(panels, [ROW * len(panel["rows"]) for panel in panels], axes)
    made["margin"]["r"] = ANSWERS
    made["shapes"] = [shape for index, p in enumerate(panels) for shape in _shapes(p, index)]
    made["annotations"] += [
        note for index, panel in enumerate(panels) for note in _words(panel["rows"], index)
    ]
    return {"data": data, "layout": made}


def _span(panel: Mapping[str, Any]) -> Ends:
    """Return the ends of the axis, which has all known numbers, zero, and the margin's band."""
    known = [row[key] for row in panel["rows"] for key in ("value", "low", "high")]
    values = [0.0, *(sign * 1.5 * panel["margin"] for sign in (-1, 1))]
    values += [value for value in known if value is not None]
    room = 0.08 * (max(values) - min(values)) or 1.0
    return min(values) - room, max(values) + room


def _traces(
    row: Row, place: int, span: Ends, index: int, labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    if row["value"] is None:
        return
    look = style(row["label"], labels)
    suffix = str(index + 1) if index else ""
    common = {"type": "scatter", "xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    common["name"] = plot(row["label"])
    yield {**common, **_line(row, place, span, look["color"])}
    yield {**common, **_middle(row, place, look)}
    inset = 0.015 * (span[1] - span[0])
    sides = (("left", span[0] + inset, row["low"]), ("right", span[1] - inset, row["high"]))
    for symbol, end, limit in sides:
        if limit is None:
            yield {**common, **_arrow(end, place, symbol, look["color"])}


def _line(row: Row, place: int, span: Ends, color: str) -> dict[str, Any]:
    known = row["low"] is not None or row["high"] is not None
    ends = [
        end if limit is None else limit
        for end, limit in zip(span, (row["low"], row["high"]), strict=True)
    ]
    return {
        "x": ends,
        "y": [place, place],
        "mode": "lines",
        "line": {"color": color, "width": 3 if known else 1.5, "dash": "solid" if known else "dot"},
        "hoverinfo": "skip",
    }


def _middle(row: Row, place: int, look: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "x": [row["value"]],
        "y": [place],
        "mode": "markers",
        "marker": {"color": look["color"], "size": 11, "symbol": look["symbol"]},
        "customdata": [_limits(row)],
        "hovertemplate": f"%{{x:+.3g}}, %{{customdata}}<br>{plot(row['answer'])}",
    }


def _limits(row: Row) -> str:
    """Return the interval in words.

    >>> _limits({"low": -0.5, "high": None}), _limits({"low": None, "high": None})
    ('at least -0.5', 'no interval')
    """
    low, high = row["low"], row["high"]
    if low is None and high is None:
        return "no interval"
    if low is None or high is None:
        return f"at most {high:+.3g}" if low is None else f"at least {low:+.3g}"
    return f"between {low:+.3g} and {high:+.3g}"


def _arrow(end: float, place: int, symbol: str, color: str) -> dict[str, Any]:
    return {
        "x": [end],
        "y": [place],
        "mode": "markers",
        "marker": {"color": color, "size": 11, "symbol": f"triangle-{symbol}"},
        "hovertemplate": "no limit on this side",
    }


def _shapes(panel: Mapping[str, Any], index: int) -> list[dict[str, Any]]:
    """Return the band of equivalent differences, and the line at zero."""
    suffix = str(index + 1) if index else ""
    place = {"xref": f"x{suffix}", "yref": f"y{suffix} domain", "y0": 0, "y1": 1, "layer": "below"}
    margin = panel["margin"]
    band = {"type": "rect", "x0": -margin, "x1": margin, "fillcolor": "@band", "line": {"width": 0}}
    zero = {"type": "line", "x0": 0, "x1": 0, "line": {"color": "@muted", "width": 1.5}}
    return [{**place, **band}, {**place, **zero}]


def _words(rows: Sequence[Row], index: int) -> Iterator[dict[str, Any]]:
    """Return the answers at the right of the rows, and the text for missing numbers."""
    suffix = str(index + 1) if index else ""
    for place, row in enumerate(rows):
        common = {"y": place, "yref": f"y{suffix}", "showarrow": False, "font": {"size": 12}}
        color = COLORS.get(row["answer"], "@muted")
        yield {
            **common,
            "text": plot(row["answer"]),
            "x": 1,
            "xref": "paper",
            "xanchor": "left",
            "xshift": 12,
            "font": {"size": 13, "color": color},
        }
        if row["value"] is None:
            words = {"text": "no number: runs diverged", "x": 0.5, "xref": "paper"}
            yield {**common, **words, "bgcolor": "@card"}


def _x_axis(span: Ends) -> dict[str, Any]:
    return {
        "range": list(span),
        "title": {"text": "← worse     better →", "standoff": 8},
        "tickformat": "~g",
    }


def _y_axis(panel: Mapping[str, Any]) -> dict[str, Any]:
    names = [row["label"] for row in panel["rows"]]
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [wrapped(name) for name in names],
        "range": [len(names) - 0.4, -0.6],
        "showgrid": False,
        "ticks": "",
        "fixedrange": True,
    }
