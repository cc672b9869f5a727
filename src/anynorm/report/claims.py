"""One section for each claim: a question, its answer, a figure, the definition and the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.missing import explained
from anynorm.report.plots import Page, plot
from anynorm.report.tables import status, table
from anynorm.report.text import markup

__all__ = ["claim", "missing", "summary"]

Claim = Mapping[str, Any]


def summary(claims: Sequence[Claim], anchor: str) -> str:
    """Return all questions with their answers, one line each, linked to their sections.

    Without answers it is a table of contents, which is hidden on a wide page.
    """
    if not claims:
        return ""
    answered = any(one.get("status") or one.get("statement") for one in claims)
    rows = "".join(_row(one, f"{anchor}-{one['id']}", answered) for one in claims)
    head = '<th scope="col">question</th>'
    if answered:
        head += '<th scope="col">status</th><th scope="col">statement</th>'
    kind = "claims" if answered else "claims plain"
    return (
        f'<section class="{kind}" id="{anchor}-claims"><h2>What was asked</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-label="What was asked">'
        f'<table class="prose"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</section>"
    )


def _row(one: Claim, anchor: str, answered: bool) -> str:
    link = f'<th scope="row"><a href="#{markup(anchor)}">{markup(one["title"])}</a></th>'
    if not answered:
        return f"<tr>{link}</tr>"
    word = status(one["status"]) if one.get("status") else "described"
    statement = one.get("statement") or "There is no statement to judge; the section has numbers."
    return f"<tr>{link}<td>{word}</td><td>{markup(statement)}</td></tr>"


def claim(one: Claim, anchor: str, page: Page) -> str:
    """Return the section of one claim."""
    word = f" {status(one['status'])}" if one.get("status") else ""
    figure = plot(one["figure"], f"{anchor}-figure", one["title"], one["sentence"], page)
    return (
        f'<section class="claim" id="{markup(anchor)}"><h3>{markup(one["title"])}{word}</h3>'
        f"{figure}<details><summary>How it is measured</summary>"
        f'<p class="definition">{markup(one["definition"])}</p></details>'
        f"<details><summary>Numbers</summary>{_tables(one, page.labels)}</details></section>"
    )


def _tables(one: Claim, labels: Sequence[str]) -> str:
    found = ""
    for numbers in one["tables"]:
        rows = _with_layers(numbers, explained(numbers, one["figure"]), one["figure"])
        found += table(numbers["caption"], numbers["columns"], rows, labels)
    return found


def _with_layers(
    numbers: Mapping[str, Any], rows: list[list[Any]], figure: Mapping[str, Any]
) -> list[list[Any]]:
    """Replace the index of a layer by its name, if the figure names layers."""
    names = figure.get("x", {}).get("names")
    if not names or "layer" not in numbers["columns"]:
        return rows
    place = numbers["columns"].index("layer")
    return [[*row[:place], names[row[place] - 1], *row[place + 1 :]] for row in rows]


def missing(items: Sequence[Mapping[str, str]]) -> str:
    """Return what was not measured, and why."""
    if not items:
        return ""
    rows = "".join(
        f"<li><b>{markup(item['title'])}</b> {markup(_sentence(item['reason']))}</li>"
        for item in items
    )
    return f'<section class="claim missing"><h3>Not measured</h3><ul>{rows}</ul></section>'


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]
