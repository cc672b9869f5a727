"""The picture: for each normalizer a row of dots, one for each shape, by its time over ours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anynorm.bench.cases import DTYPES
from anynorm.report import svg
from benchmarks.speed.show import machine

__all__ = ["draw", "label", "pictured", "shape_text"]

Row = Mapping[str, Any]
WIDTH, LABELS, GAP, MARGIN = 960, 190, 44, 24
TOP, ROW, HEAD, FOOT = 126, 19, 26, 32
RADII = ((10_000, 3.0, "≤ 10⁴ values"), (1_000_000, 4.5, "≤ 10⁶"), (math.inf, 6.5, "more"))
TITLES = {
    "default": "memory as malloc gives it",
    "kept": "freed memory kept: anynorm.tune_allocator()",
}
PICTURED_PHASE = "both"


@dataclass(frozen=True)
class View:
    """What a panel shows: of all its rows those in training, of one type, that torch has too."""

    title: str
    dtype: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Panel:
    """Where one view is drawn, and how ratios lie on its logarithmic axis."""

    left: float
    width: float
    low: float
    high: float

    def x(self, ratio: float) -> float:
        """Return where a ratio lies."""
        share = math.log(ratio / self.low) / math.log(self.high / self.low)
        return self.left + self.width * share


def views(results: Sequence[Mapping[str, Any]]) -> list[View]:
    """One for each setting of the allocator of a processor, or for each type on a GPU."""
    if results[0]["about"].get("gpu"):
        rows = [row for result in results for row in result["cases"]]
        by_type = {dtype: [row for row in rows if row["dtype"] == dtype] for dtype in DTYPES}
        shown = [View(dtype, dtype, kept) for dtype, kept in by_type.items() if kept]
        return shown or [View("nothing to compare", "fp32", [])]
    return [View(TITLES[one["about"]["allocator"]], "fp32", one["cases"]) for one in results]


def pictured(rows: Sequence[Row], dtype: str = "fp32") -> dict[str, dict[str, list[Row]]]:
    """Return what is drawn, by group and by label: one type in training, where torch has a twin."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row["twin"] and row["dtype"] == dtype and row["phase"] == PICTURED_PHASE:
            found.setdefault(_group(row), {}).setdefault(label(row), []).append(row)
    return found


def _group(row: Row) -> str:
    if len(row["shape"]) == 2:
        return "rows of features"
    if row["normalizer"] == "weight":
        return "weights"
    return {"contiguous": "images, NCHW", "channels_last": "images, channels_last"}[row["layout"]]


def label(row: Row) -> str:
    """Name a normalizer and what is fused with it.

    >>> label({"normalizer": "batch", "fusion": "add+relu"})
    'batch + add + relu'
    """
    fused = [] if row["fusion"] == "plain" else row["fusion"].split("+")
    return " + ".join([row["normalizer"], *fused])


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as people write it.

    >>> shape_text([2, 3])
    '2x3'
    """
    return "x".join(map(str, shape))


def draw(results: Sequence[Mapping[str, Any]], peer: str = "eager") -> str:
    """Return the picture of results that were measured on one machine."""
    shown = views(_with(peer, results))
    groups = [pictured(view.rows, view.dtype) for view in shown]
    panels = _panels(groups, peer)
    places, bottom = _places(groups)
    parts = [*_words(results), *_legend()]
    for panel, view in zip(panels, shown, strict=True):
        parts += _frame(panel, view, bottom, peer)
    for (group, name), y in places.items():
        parts.append(svg.text(MARGIN, y + 4, name or group, "" if name else "head"))
        for panel, found in zip(panels, groups, strict=True):
            parts += _dots(panel, found.get(group, {}).get(name, []), y, peer) if name else []
    return svg.document(WIDTH, bottom + FOOT, "Time of torch.nn over that of anynorm", parts)


def _with(peer: str, results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The results without the rows in which the peer did not take part."""
    return [
        {**one, "cases": [row for row in one["cases"] if peer in row["ratio"]]} for one in results
    ]


def _panels(groups: Sequence[Mapping[str, Any]], peer: str) -> list[Panel]:
    """One beside the other, with one scale of powers of two for all."""
    ratios = [
        row["ratio"][peer]["median"]
        for found in groups
        for labels in found.values()
        for rows in labels.values()
        for row in rows
    ]
    low = 2.0 ** math.floor(math.log2(min([0.6, *(0.9 * ratio for ratio in ratios)])))
    high = 2.0 ** math.ceil(math.log2(max([4.0, *(1.1 * ratio for ratio in ratios)])))
    room = WIDTH - LABELS - MARGIN - GAP * (len(groups) - 1)
    width = room / len(groups)
    return [Panel(LABELS + index * (width + GAP), width, low, high) for index in range(len(groups))]


def _places(groups: Sequence[Mapping[str, Any]]) -> tuple[dict[tuple[str, str], float], float]:
    """The height of each row (of a group's heading: the label "") and of their end."""
    places: dict[tuple[str, str], float] = {}
    y = float(TOP)
    for group in dict.fromkeys(name for found in groups for name in found):
        labels = dict.fromkeys(label for found in groups for label in found.get(group, {}))
        for name in ("", *labels):
            places[group, name] = y + (HEAD - ROW if not name else 0)
            y += ROW if name else HEAD
    return places, y


def _words(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    about = results[0]["about"]
    types = "" if about.get("gpu") else ", fp32"
    title = f"Time of torch.nn over anynorm's, forward + backward{types}"
    yield svg.text(MARGIN, 28, title, "title")
    yield svg.text(MARGIN, 48, f"{machine(about)}; {about['date'][:10]}", "muted")


def _legend() -> Iterator[str]:
    x = float(MARGIN)
    for _, radius, words in RADII:
        yield svg.circle(x + 6, 67, radius, "good")
        yield svg.text(x + 18, 71, words, "muted")
        x += 40 + 8 * len(words)
    yield svg.diamond(x + 6, 67, 6, "bad")
    yield svg.text(x + 18, 71, "torch is faster", "muted")


def _frame(panel: Panel, view: View, bottom: float, peer: str) -> Iterator[str]:
    lost = sum(row["ratio"][peer]["median"] < 1 for row in view.rows)
    yield svg.text(panel.left, TOP - 24, view.title, "head")
    told = f"torch is faster in {lost} of all {len(view.rows)} cases"
    yield svg.text(panel.left, TOP - 8, told, "muted")
    yield svg.rect(panel.left, TOP, panel.x(1) - panel.left, bottom - TOP, "warn")
    power = math.log2(panel.low)
    while 2.0**power <= panel.high:
        x = panel.x(2.0**power)
        yield svg.line(x, TOP, x, bottom, "mark" if power == 0 else "grid")
        yield svg.text(x, bottom + 16, f"{2.0**power:g}×", "muted", "middle")
        power += 1


def _dots(panel: Panel, rows: Sequence[Row], y: float, peer: str) -> Iterator[str]:
    """The largest first; those behind last, so that none hides them."""
    ordered = sorted(rows, key=lambda row: (row["ratio"][peer]["median"] < 1, -row["values"]))
    for row in ordered:
        ratio = row["ratio"][peer]["median"]
        radius = next(radius for most, radius, _ in RADII if row["values"] <= most)
        title = f"{label(row)} {shape_text(row['shape'])}: {ratio:.2f}"
        if ratio < 1:
            yield svg.diamond(panel.x(ratio), y, radius + 1, "bad", title)
        else:
            yield svg.circle(panel.x(ratio), y, radius, "good", title)
