"""A diagnosis as one HTML page that opens offline: findings first, then what was healthy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from anynorm.report.files import write_whole
from anynorm.report.frame import framed
from anynorm.report.text import cell, markup

__all__ = ["facts", "grouped", "headline", "page", "place", "write"]

Diagnosis = Mapping[str, Any]
Finding = Mapping[str, Any]
LONG = 28  # characters of a name that a table may break into lines
KINDS = {"error": "undecided error", "warning": "undecided", "info": "use"}


def write(diagnosis: Diagnosis, path: str | os.PathLike[str]) -> None:
    """Write `diagnosis`, as `anynorm.doctor.Diagnosis.to_dict` returns it, as a page at `path`."""
    write_whole(path, page(diagnosis))


def page(diagnosis: Diagnosis) -> str:
    """Return the page as text; it holds no script."""
    groups = grouped(diagnosis["findings"])
    parts = [_summary(diagnosis), *map(_group, groups), _healthy(diagnosis), _skipped(diagnosis)]
    return framed(
        kind="doctor",
        title=str(diagnosis["facts"]["model"]),
        contents=_contents(groups),
        main="".join([*parts, _examined(diagnosis)]),
    )


def grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return the findings of one check and severity together, in their order.

    >>> [len(group) for group in grouped([{"severity": "info", "check": n} for n in (1, 1, 2)])]
    [2, 1]
    """
    return [list(group) for _, group in groupby(findings, lambda f: (f["severity"], f["check"]))]


def headline(diagnosis: Diagnosis) -> str:
    """Return the result in a line.

    >>> headline({"healthy": False, "findings": [{"severity": "error"}, {"severity": "info"}]})
    '1 error, 1 info'
    """
    counts = [
        (kind, sum(f["severity"] == kind for f in diagnosis["findings"]))
        for kind in ("error", "warning", "info")
    ]
    words = [f"{n} {kind}{'s' if n > 1 and kind != 'info' else ''}" for kind, n in counts if n]
    return ", ".join(["Healthy", *words] if diagnosis["healthy"] else words)


def facts(diagnosis: Diagnosis) -> dict[str, str]:
    """Return what was examined, as text."""
    return {name: _fact(value) for name, value in diagnosis["facts"].items()}


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def place(finding: Finding) -> str:
    """Return the layer of a finding, for readers."""
    return str(finding["layer"]) or "the model"


def _summary(diagnosis: Diagnosis) -> str:
    found = diagnosis["findings"]
    worst = found[0]["severity"] if found else "info"
    note = diagnosis["facts"].get("note", "")
    ran = [row for row in diagnosis["checks"] if row["state"] != "skipped"]
    line = f"{len(ran)} of {len(diagnosis['checks'])} checks ran. {note}".strip()
    return (
        f'<section class="verdict {KINDS[worst]}" id="summary"><p class="overline">Diagnosis</p>'
        f'<h2>{markup(headline(diagnosis))}</h2><p class="finding">{markup(line)}</p>'
        f"{_first(found)}</section>"
    )


def _first(found: Sequence[Finding]) -> str:
    """Return the finding to start with, where there is something to do."""
    if not found or found[0]["severity"] == "info":
        return ""
    first = found[0]
    text = f"{place(first)}: {first['message']}."
    return f'<p class="lean">Start with <b>{markup(text)}</b></p>{_code(first["fix"])}'


def _contents(groups: Sequence[Sequence[Finding]]) -> str:
    links = "".join(
        f'<li><a href="#{_anchor(group)}">{markup(group[0]["name"])} ({len(group)})</a></li>'
        for group in groups
    )
    rest = "".join(
        f'<li><a href="#{name.lower()}">{name}</a></li>'
        for name in ("Healthy", "Skipped", "Examined")
    )
    return (
        f'<a class="study" href="#summary">Findings</a><ol>{links or "<li>none</li>"}</ol>'
        f'<a class="study" href="#healthy">The rest</a><ol>{rest}</ol>'
    )


def _anchor(group: Sequence[Finding]) -> str:
    return f"{group[0]['severity']}-{group[0]['check']}"


def _group(group: Sequence[Finding]) -> str:
    first = group[0]
    return (
        f'<section class="claim {markup(first["severity"])}" id="{_anchor(group)}">'
        f'<p class="overline">{markup(first["severity"].capitalize())} · check {first["check"]}</p>'
        f"<h3>{markup(first['name'])}</h3>"
        f'<p class="finding"><code>{markup(place(first))}</code>: {markup(first["message"])}. '
        f"{markup(first['why'])}</p>{_numbers(group)}{_fixes(group)}"
        f'<p class="definition">Threshold: {markup(first["threshold"])}. '
        f"{markup(first['citation'])}.</p></section>"
    )


def _numbers(group: Sequence[Finding]) -> str:
    columns = list(dict.fromkeys(name for finding in group for name in finding["numbers"]))
    rows = [[place(f), *(f["numbers"].get(name) for name in columns)] for f in group]
    layers = f"{len(group)} layers" if len(group) > 1 else "Measured"
    return _table(layers, ["layer", *columns], rows)


def _fixes(group: Sequence[Finding]) -> str:
    """Return the line of code, once where it is the same for all layers."""
    lines = list(dict.fromkeys(finding["fix"] for finding in group))
    more = "".join(map(_code, lines[1:]))
    rest = f"<details><summary>{len(lines) - 1} more lines</summary>{more}</details>"
    return _code(lines[0]) + (rest if more else "")


def _code(line: str) -> str:
    return f'<p class="command"><code>{markup(line)}</code></p>'


def _healthy(diagnosis: Diagnosis) -> str:
    rows = [
        [str(row["check"]), row["name"], row["measures"], row["threshold"]]
        for row in diagnosis["checks"]
        if row["state"] == "healthy"
    ]
    table = _table("Nothing found", ["", "check", "measures", "would be found"], rows)
    shown = table.replace("<table>", '<table class="prose">') if rows else "<p>None.</p>"
    return f'<section class="claim" id="healthy"><h3>Checked and healthy</h3>{shown}</section>'


def _skipped(diagnosis: Diagnosis) -> str:
    rows = "".join(
        f"<li><b>{one['check']} {markup(one['name'])}</b> needs {markup(one['needs'])}</li>"
        for one in diagnosis["skipped"]
    )
    return (
        '<section class="claim missing" id="skipped"><h3>Not checked</h3>'
        f"{f'<ul>{rows}</ul>' if rows else '<p>Every check ran.</p>'}</section>"
    )


def _examined(diagnosis: Diagnosis) -> str:
    rows = "".join(
        f"<div><dt>{markup(name)}</dt><dd>{markup(value)}</dd></div>"
        for name, value in facts(diagnosis).items()
    )
    return (
        '<section class="claim" id="examined"><h3>What was examined</h3>'
        f'<dl class="facts">{rows}</dl></section>'
    )


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{markup(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="table"><div class="bar"><span>{markup(caption)}</span></div>'
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )


def _cell(value: Any) -> str:
    kind = "number" if isinstance(value, (int, float)) else "long" if len(str(value)) > LONG else ""
    return f'<td class="{kind}">{markup(cell(value))}</td>'
