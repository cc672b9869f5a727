"""The top of the page: what to use, what to look at first, the comparisons, the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report import comparisons, ranking
from anynorm.report.plots import Page, plot
from anynorm.report.tables import swatch, table
from anynorm.report.text import markup

__all__ = ["verdict"]

Study = Mapping[str, Any]
# The kinds of a verdict as a reader sees them.
BADGES = {
    "use": "use",
    "prefer": "prefer",
    "no benefit": "no benefit",
    "undecided": "cannot tell yet",
}


def verdict(found: Study, anchor: str, page: Page) -> str:
    """Return the verdict on one study."""
    shown = found["verdict"]
    return (
        f'<section class="verdict {markup(shown["kind"]).replace(" ", "-")}" id="{anchor}">'
        f'<h2 class="overline">Verdict · {markup(found["subject"])} on {markup(found["data"])}</h2>'
        f"{_badge(shown, page.labels)}"
        f'<p class="headline">{markup(shown["recommendation"])}</p>'
        f"{_causes(shown['causes'])}{_differences(found, anchor, page)}"
        f"{_ranking(found, anchor, page)}{_reached(found)}</section>"
    )


def _badge(shown: Mapping[str, Any], labels: Sequence[str]) -> str:
    name = shown["recommended"] if shown["kind"] in ("use", "prefer") else None
    named = f"<span>{swatch(name, labels)} {markup(name)}</span>" if name is not None else ""
    kind = markup(shown["kind"]).replace(" ", "-")
    word = markup(BADGES.get(shown["kind"], shown["kind"]))
    return f'<p class="kind"><span class="badge {kind}">{word}</span> {named}</p>'


def _causes(causes: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<li>{markup(cause["sentence"])} <b class="action">{markup(cause["action"])}</b></li>'
        for cause in causes
    )
    return f'<div class="causes"><h3>First look at this</h3><ul>{rows}</ul></div>' if rows else ""


def _differences(found: Study, anchor: str, page: Page) -> str:
    shown = found["verdict"]
    compared = comparisons.ordered(shown["comparisons"], page.order)
    if not compared:
        return ""
    title = f"Is the difference in {found['score']['name']} real?"
    answer = comparisons.summary(compared)
    columns = comparisons.columns(shown["unit"])
    rows = comparisons.rows(compared)
    return (
        f"<h3>{markup(title)}</h3>"
        f"{plot(shown['differences'], f'{anchor}-differences', title, answer, page)}"
        f"{table('Comparisons', columns, rows, page.labels)}"
    )


def _ranking(found: Study, anchor: str, page: Page) -> str:
    entries = found["verdict"]["ranking"]
    if not entries:
        return ""
    title = "Which scores best, each at its own learning rate?"
    columns = ranking.columns(entries, found["score"])
    rows = [ranking.cells(entry, found["score"]["percent"]) for entry in entries]
    return (
        f"<h3>{title}</h3>{plot(found['verdict']['figure'], anchor, title, '', page)}"
        f"{table('Ranking', columns, rows, page.labels)}"
    )


def _reached(found: Study) -> str:
    sentences = "".join(f"<li>{markup(text)}</li>" for text in found["verdict"]["sentences"])
    listed = f'<ul class="evidence">{sentences}</ul>' if sentences else ""
    return (
        f"<h3>How this verdict was reached</h3>{listed}"
        f'<p class="definition">Base setting: {markup(found["base"])}.</p>'
    )
