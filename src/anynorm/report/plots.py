"""Figures on the page: the answer, the legend with which curves are chosen, the drawing area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anynorm.report.figures import draw
from anynorm.report.tables import swatch
from anynorm.report.text import markup

__all__ = ["Page", "plot"]

CURVES = 4  # the number of curves that a figure shows at first
FIRST = ("none", "batch")
Figure = Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """The common settings of all figures of a page.

    `labels` decides which colour each normalizer has, `order` is that of the ranking, and
    `figures` collects what the page's script draws.
    """

    labels: Sequence[str]
    order: Sequence[str] = ()
    figures: dict[str, Any] = field(default_factory=dict)


def plot(figure: Figure, name: str, title: str, answer: str, page: Page) -> str:
    """Return a figure that answers the question `title`; it is drawn in the browser."""
    if figure["kind"] == "series":
        figure = {**figure, "focus": _focus(figure, page.order)}
    page.figures[name] = draw(figure, page.labels)
    height = page.figures[name]["layout"]["height"]
    caption = f'<figcaption class="finding">{markup(answer)}</figcaption>' if answer else ""
    return (
        f"<figure>{caption}{_legend(figure, page.labels)}"
        f'<div class="plot" role="img" aria-label="{markup(title)}" data-figure="{markup(name)}" '
        f'style="height:{height}px"></div></figure>'
    )


def _focus(figure: Figure, order: Sequence[str]) -> list[str]:
    """Return the curves that are shown at first: none, batch, and the best of the others."""
    names = _names(figure)
    wanted = [*FIRST, *order, *names]
    shown = [name for name in dict.fromkeys(wanted) if name in figure.get("focus", names)]
    return [name for name in shown if name in names][:CURVES]


def _names(figure: Figure) -> list[str]:
    return list(dict.fromkeys(name for panel in figure["panels"] for name in panel["series"]))


def _legend(figure: Figure, labels: Sequence[str]) -> str:
    """Return the legend above a figure: normalizers to show and hide, or the meaning of marks."""
    if figure["kind"] == "series":
        return _toggles(figure, labels)
    if figure["kind"] == "heat":
        return _key("▢ usable", "✕ a seed diverged", "number: the worst seed")
    if figure["kind"] == "intervals":
        margin = figure["panels"][0]["margin"]
        return _key(
            "● difference, with its interval",
            f"▒ within ± {margin:g}: equivalent",
            "◂ ▸ no limit on this side",
        )
    marks = dict.fromkeys(row["mark"] for panel in figure["panels"] for row in panel["rows"])
    return _key(*(f"{sign} {m}" for sign, m in zip("●◇□", marks, strict=False) if m))


def _key(*texts: str) -> str:
    shown = "".join(f"<span>{markup(text)}</span>" for text in texts)
    return f'<p class="key">{shown}</p>' if shown else ""


def _toggles(figure: Figure, labels: Sequence[str]) -> str:
    names, focus = _names(figure), figure["focus"]
    buttons = "".join(_chip(name, name in focus, labels) for name in names)
    hidden = " hidden" if len(focus) == len(names) else ""
    return (
        f'<div class="legend" role="group" aria-label="Curves shown">{buttons}</div>'
        f'<p class="key count" role="status"{hidden}><span><b>{len(focus)}</b> of {len(names)} '
        "curves are shown. Choose others by their names.</span></p>"
    )


def _chip(name: str, shown: bool, labels: Sequence[str]) -> str:
    return (
        f'<button type="button" class="chip" data-series="{labels.index(name)}" '
        f'aria-pressed="{str(shown).lower()}" title="{markup(name)}">'
        f"{swatch(name, labels)}<span>{markup(name)}</span></button>"
    )
