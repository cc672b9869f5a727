"""The common parts of figures: one style for each normalizer, stacked panels, readable axes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from anynorm.report.text import wrapped

__all__ = ["Style", "axis_name", "layout", "log_axis", "style"]

Style = Mapping[str, Any]
HUES = 8  # colours of the page's palette; the first is for the model without normalization
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
# Suffixes of a normalizer's name: something was added or left out.
VARIANT = re.compile(
    r" \+ noise$|,? (with )?no γ.*$| without γ.*$|\(affine=False\)$|, affine=False"
)
TITLE_HEIGHT = 34
LINE = 38  # characters of a panel's title on one line
FOOT = 52  # below a panel whose axis has a title
SHORT_FOOT = 30
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'


def style(label: str, labels: Sequence[str]) -> Style:
    """Return colour, dash and symbol of a normalizer: the same in every figure of a page.

    The first colour is only for the model without normalization. A normalizer with noise, or
    without γ and β, has the colour of the normalizer itself. Names with the same
    colour (there may be more names than colours) differ in dash and symbol.

    >>> style("batch + noise", ["none", "batch", "batch + noise"])["color"]
    '@1'
    """
    hue, turn = _looks(tuple(labels))[label]
    return {
        "color": f"@{hue}",
        "dash": DASHES[turn % len(DASHES)],
        "symbol": SYMBOLS[turn % len(SYMBOLS)],
    }


@lru_cache(maxsize=8)
def _looks(labels: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Return every name's colour, and the number of earlier names with the same colour."""
    families = [name for name in dict.fromkeys(map(_family, labels)) if name != "none"]
    looks: dict[str, tuple[int, int]] = {}
    for label in labels:
        family = _family(label)
        hue = 1 + families.index(family) % (HUES - 1) if family in families else 0
        looks[label] = hue, sum(taken == hue for taken, _ in looks.values())
    return looks


def _family(label: str) -> str:
    """Return the normalizer of which a name is a variant.

    >>> _family("batch + noise"), _family("group(groups=8, affine=False)"), _family("batch, no γ β")
    ('batch', 'group(groups=8)', 'batch')
    """
    return VARIANT.sub("", label)


def axis_name(letter: str, index: int) -> str:
    """Return plotly's name of the `index`-th axis.

    >>> axis_name("y", 0), axis_name("y", 1)
    ('yaxis', 'yaxis2')
    """
    return f"{letter}axis{index + 1 if index else ''}"


def log_axis(values: Iterable[float | None]) -> dict[str, Any]:
    """Return a logarithmic axis; if `values` span little, it has the ticks 1, 2 and 5.

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
    """Return a tick as a decimal such as 0.01 if it is short, otherwise as a power of ten."""
    if low >= -4 and high < 5:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    lead = round(value / 10.0**power)
    return f"{'' if lead == 1 else f'{lead}·'}10<sup>{power}</sup>"


def _title(text: str, top: float) -> dict[str, Any]:
    """Return the title above the left end of a panel; a rotated title would take width."""
    return {
        "text": wrapped(text, LINE),
        "align": "left",
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


def _title_height(panels: Sequence[Mapping[str, Any]]) -> int:
    """Return the space for titles; long titles need more."""
    long = any("<br>" in wrapped(panel["title"], LINE) for panel in panels)
    return TITLE_HEIGHT + (16 if long else 0)


def _domains(heights: Sequence[int], between: int) -> list[list[float]]:
    """Return the panels' shares of the plotting area, the first panel on top."""
    total = sum(heights) + between * (len(heights) - 1)
    domains, top = [], float(total)
    for height in heights:
        domains.append([max(0.0, (top - height) / total), top / total])
        top -= height + between
    return domains


def layout(
    panels: Sequence[Mapping[str, Any]], heights: Sequence[int], axes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a layout of stacked panels; `axes` holds each panel's ``x`` and ``y`` axis."""
    foot = FOOT if any("title" in axis["x"] for axis in axes) else SHORT_FOOT
    head = _title_height(panels)
    domains = _domains(heights, head + foot)
    made: dict[str, Any] = {
        "height": sum(heights) + (head + foot) * len(heights),
        "margin": {"l": 12, "r": 16, "t": head, "b": foot},
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
