"""Tables of the page, which scroll separately and can be copied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.figures.style import style
from anynorm.report.missing import Missing
from anynorm.report.text import cell, markup

__all__ = ["status", "swatch", "table"]

NUMBER = re.compile(r"[+−]?[\d.]+")
LONG = 28  # characters of a name that a table may break into lines
# The classes of the words that answer a question; their colours are used for nothing else.
STATUS = {
    "better": "good",
    "shown": "good",
    "harmful": "bad",
    "contradicted": "bad",
    "equivalent": "same",
    "cannot tell": "open",
}


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], labels: Sequence[str]
) -> str:
    """Return a table with a copy button; names of normalizers have their colour."""
    names = [
        place for place, column in enumerate(columns) if column in ("normalizer", "compared with")
    ]
    head = "".join(f'<th scope="col">{markup(column)}</th>' for column in columns)
    body = "".join(
        f"<tr>{''.join(_cell(v, i in names, labels) for i, v in enumerate(row))}</tr>"
        for row in rows
    )
    return (
        f'<div class="table"><div class="bar"><span>{markup(caption)}</span>'
        '<button type="button" class="copy">Copy</button></div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{markup(caption)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _cell(value: Any, is_name: bool, labels: Sequence[str]) -> str:
    if isinstance(value, Missing):
        return _blank(value)
    if is_name and value in labels:
        long = ' class="long"' if len(value) > LONG else ""
        return f'<th scope="row"{long}>{swatch(value, labels)}{markup(value)}</th>'
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        long = ' class="long"' if len(value) > LONG else ""
        return f"<td{long}>{status(value) if value in STATUS else markup(value)}</td>"
    return f'<td class="number">{markup(cell(value))}</td>'


def _blank(value: Missing) -> str:
    if value.shown:
        return f'<td class="number blank">{markup(value.reason)}</td>'
    return f'<td class="blank" title="{markup(value.reason)}"></td>'


def status(word: str) -> str:
    """Return a word that answers a question, in its colour."""
    return f'<span class="status {STATUS.get(word, "open")}">{markup(word)}</span>'


def swatch(name: str, labels: Sequence[str]) -> str:
    """Return a piece of the line that a normalizer has in the figures."""
    look: Mapping[str, str] = style(name, labels)
    hue = look["color"].removeprefix("@")
    return f'<i class="swatch" data-dash="{look["dash"]}" style="--c:var(--hue-{hue})"></i>'
