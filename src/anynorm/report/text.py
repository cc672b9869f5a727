"""Names and numbers as text; names come from users, so markup in them is escaped."""

from __future__ import annotations

import html
from typing import Any

__all__ = ["cell", "last_line", "markup", "plot", "rounded", "visible", "wrapped"]


def visible(text: object) -> str:
    r"""Return `text` with every invisible character written out.

    Line breaks, terminal escapes, marks that reverse the direction of text and lone surrogates
    could change how the text around a name is shown.

    >>> visible("a\nb")
    'a\\nb'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def markup(text: object) -> str:
    """Return `text` for an HTML page, as an element's content or a quoted attribute.

    >>> markup('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(visible(text), quote=True)


def plot(text: object) -> str:
    """Escape `text` for a figure, because plotly renders HTML in names, labels and hover texts.

    >>> plot("<b>")
    '&lt;b&gt;'
    """
    return html.escape(visible(text), quote=False)


def wrapped(text: object, width: int = 16, most: int = 2) -> str:
    """Return a figure's label on at most `most` short lines, broken at hyphens and the like.

    >>> wrapped("layer-over-channels")
    'layer-over-<br>channels'
    """
    lines = [""]
    for word in _words(visible(text), width):
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + "…"]
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def _words(text: str, width: int) -> list[str]:
    """Split after every separator; text without one is cut into pieces that fit a label."""
    for separator in "-( _.":
        text = text.replace(separator, f"{separator}\n")
    return [part[i : i + width] for part in text.split("\n") for i in range(0, len(part), width)]


def cell(value: Any) -> str:
    """Return a table's cell: four digits of a number, a dash for what is missing.

    >>> cell(0.123456), cell(3), cell(None), cell("batch")
    ('0.1235', '3', '–', 'batch')
    """
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else visible(value)


def last_line(text: str) -> str:
    """Return the last line of a message, in which a traceback names the error.

    >>> last_line("Traceback …\\n  File …\\nValueError: too small\\n")
    'ValueError: too small'
    """
    return text.strip().rpartition("\n")[2]


def rounded(value: Any, digits: int) -> Any:
    """Return plain JSON with every fraction in it cut to so many digits.

    >>> rounded({"ratio": [1.23456, 2]}, digits=3)
    {'ratio': [1.23, 2]}
    """
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
