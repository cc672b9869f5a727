"""What all figures share: one style for each normalizer, stacked panels, readable axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anynorm.report.text import plot

__all__ = ["Style", "axis_name", "layout", "log_axis", "style"]

Style = Mapping[str, Any]
HUES = 8  # colours of the page's palette; the first is for the model without normalization
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up")
TITLE_HEIGHT = 34
FOOT = 52  # below a panel whose axis has a title
SHORT_FOOT = 30
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'


def style(label: str, labels: Sequence[str]) -> Style:
    """Return colour, dash and symbol of a normalizer: the same in every figure of a page.

    The first colour is kept for the model without normalization. When the others run out they
    start again with another dash and symbol.
    """
    index = labels.index(label)
    turn, hue = divmod(index - 1, HUES - 1) if index else (0, -1)
    return {
        "color": f"@{hue + 1}",
        "dash": DASHES[turn % len(DASHES)],
        "symbol": SYMBOLS[turn % len(SYMBOLS)],
    }


def axis_name(letter: str, index: int) -> str:
    """Return plotly's name of the `index`-th axis.

    >>> axis_name("y", 0), axis_name("y", 1)
    ('yaxis', 'yaxis2')
    """
    return f"{letter}axis{index + 1 if index else ''}"


def log_axis(values: Iterable[float | None]) -> dict[str, Any]:
    """Return a logarithmic axis, with the ticks 1, 2, 5 where `values` span little.

    >>> log_axis([0.1, 0.4])["ticktext"][:3]
    ['0.1', '0.2', '0.5']
    """
    logs = [math.log10(value) for value in values if value is not None and value > 0]
    low, high = (math.floor(min(logs)), math.ceil(max(logs))) if logs else (0, 1)
    narrow = not logs or max(logs) - min(logs) < 1.7
    leads = (1, 2, 5) if narrow else (1,)
    step = max(1, math.ceil((high - low) / 7))
    ticks = [lead * 10.0**power for power in range(low, high + 1, step) for lead in leads]
    texts = [_tick(tick, low, high) for tick in ticks]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": texts}


def _tick(value: float, low: int, high: int) -> str:
    """Return 0.01 or 100 as such while they are short, and a power of ten where they are not."""
    if low >= -4 and high < 5:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    lead = round(value / 10.0**power)
    return f"{'' if lead == 1 else f'{lead}·'}10<sup>{power}</sup>"


def _title(text: str, top: float) -> dict[str, Any]:
    """Return the title above the left end of a panel: it takes no width, as a rotated one would."""
    return {
        "text": plot(text),
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": top,
        "yref": "paper",
        "yanchor": "bottom",
        "yshift": 6,
        "showarrow": False,
        "font": {"size": 13, "color": "@ink"},
    }


def _domains(heights: Sequence[int], foot: int) -> list[list[float]]:
    """Return the panels' shares of the plotting area, the first panel on top."""
    total = sum(heights) + (TITLE_HEIGHT + foot) * (len(heights) - 1)
    domains, top = [], float(total)
    for height in heights:
        domains.append([max(0.0, (top - height) / total), top / total])
        top -= height + TITLE_HEIGHT + foot
    return domains


def layout(
    panels: Sequence[Mapping[str, Any]], heights: Sequence[int], axes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a layout of stacked panels; `axes` holds each panel's ``x`` and ``y`` axis."""
    foot = FOOT if any("title" in axis["x"] for axis in axes) else SHORT_FOOT
    domains = _domains(heights, foot)
    made: dict[str, Any] = {
        "height": sum(heights) + (TITLE_HEIGHT + foot) * len(heights),
        "margin": {"l": 12, "r": 16, "t": TITLE_HEIGHT, "b": foot},
        "showlegend": False,
        "hovermode": "closest",
        "font": {"size": 12, "color": "@muted", "family": FONT},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"align": "left", "bgcolor": "@blank", "font": {"size": 13, "color": "@ink"}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "@muted", "activecolor": "@ink"},
        "annotations": [_title(p["title"], d[1]) for p, d in zip(panels, domains, strict=True)],
    }
    for index, axis in enumerate(axes):
        suffix = axis_name("", index).removeprefix("axis")
        made[axis_name("x", index)] = {**BASE_AXIS, "anchor": f"y{suffix}", **axis["x"]}
        y = {**BASE_AXIS, "domain": domains[index], "automargin": True, **axis["y"]}
        made[axis_name("y", index)] = {**y, "anchor": f"x{suffix}"}
    return made


BASE_AXIS = {
    "gridcolor": "@grid",
    "linecolor": "@axis",
    "tickcolor": "@axis",
    "zeroline": False,
    "ticks": "outside",
    "ticklen": 4,
    "fixedrange": False,
    "title": {"standoff": 8, "font": {"size": 12}},
}
