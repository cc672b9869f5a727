"""A diagnosis as one HTML page that opens offline: causes with findings, then healthy checks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from anynorm.report.files import write_whole
from anynorm.report.frame import framed
from anynorm.report.text import cell, markup

__all__ = [
    "asked",
    "facts",
    "folded",
    "grouped",
    "headline",
    "offered",
    "page",
    "place",
    "surety",
    "write",
]

Diagnosis = Mapping[str, Any]
Finding = Mapping[str, Any]
Cause = Mapping[str, Any]
LONG = 28  # characters of a name that a table may break into lines
KINDS = {"error": "undecided error", "warning": "undecided", "info": "use"}


def write(diagnosis: Diagnosis, path: str | os.PathLike[str]) -> None:
    """Write `diagnosis`, as `anynorm.doctor.Diagnosis.to_dict` returns it, as a page at `path`."""
    write_whole(path, page(diagnosis))


def page(diagnosis: Diagnosis) -> str:
    """Return the page as text; it holds no script."""
    causes = diagnosis["causes"]
    groups = grouped(folded(diagnosis, causes))
    parts = [
        _summary(diagnosis),
        *(_cause(diagnosis, index) for index in range(len(causes))),
        *map(_group, groups),
        _healthy(diagnosis),
        _skipped(diagnosis),
    ]
    return framed(
        kind="doctor",
        title=str(diagnosis["facts"]["model"]),
        contents=_contents(causes, groups),
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

    >>> found = [{"severity": "error"}, {"severity": "info"}]
    >>> headline({"status": 1, "findings": found, "causes": [{"name": "shared layer"}]})
    'shared layer: 1 error, 1 info'
    """
    counts = [
        (kind, sum(f["severity"] == kind for f in diagnosis["findings"]))
        for kind in ("error", "warning", "info")
    ]
    words = [f"{n} {kind}{'s' if n > 1 and kind != 'info' else ''}" for kind, n in counts if n]
    if diagnosis["status"] == 1:
        name = diagnosis["causes"][0]["name"] if diagnosis["causes"] else "not healthy"
        return f"{name}: {', '.join(words)}"
    return ", ".join(["Healthy" if diagnosis["status"] == 0 else _untold(diagnosis), *words])


def _untold(diagnosis: Diagnosis) -> str:
    if not diagnosis["examined"]:
        return "Not examined"
    return "Cannot tell: not all layers could be examined"


def offered(cause: Cause) -> str:
    """Return the line of code that repairs a cause, or why no repair is offered."""
    if cause["refused"]:
        return f"none: {cause['refused']}"
    return str(cause["fix"])


def surety(cause: Cause) -> str:
    """Return how sure the cause is, and whether the model or the data are wrong."""
    where = "; the data look wrong, not the model: fix() leaves its statistics alone"
    why = cause.get("unproven", "")
    unproven = f"; {why}: fix() changes nothing unless accept_data=True" if why else ""
    return f"{cause['sure']}{where if cause['data'] else unproven}"


def folded(diagnosis: Diagnosis, causes: Sequence[Cause]) -> list[Finding]:
    """Return the findings that no cause explains."""
    explained = {at for cause in causes for at in cause["findings"]}
    return [one for at, one in enumerate(diagnosis["findings"]) if at not in explained]


def asked(diagnosis: Diagnosis) -> dict[str, list[str]]:
    """Return the skipped checks that the reader can enable, by what they need.

    >>> row = {"check": 3, "name": "eval worse than train", "needs": "labels", "asked": True}
    >>> asked({"skipped": [row, {**row, "asked": False}]})
    {'labels': ['3 eval worse than train']}
    """
    found: dict[str, list[str]] = {}
    for one in diagnosis["skipped"]:
        if one["asked"]:
            found.setdefault(one["needs"], []).append(f"{one['check']} {one['name']}")
    return found


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
    worst = {0: "info", 1: "error"}.get(diagnosis["status"], "warning")
    note = diagnosis["facts"].get("note", "")
    ran = [row for row in diagnosis["checks"] if row["state"] != "skipped"]
    line = f"{len(ran)} of {len(diagnosis['checks'])} checks ran. {note}".strip()
    return (
        f'<section class="verdict {KINDS[worst]}" id="summary"><p class="overline">Diagnosis</p>'
        f'<h2>{markup(_capital(headline(diagnosis)))}</h2><p class="finding">{markup(line)}</p>'
        f"{_first(diagnosis['causes'])}</section>"
    )


def _first(causes: Sequence[Cause]) -> str:
    """Return the three lines of the worst cause, if there is something to do."""
    if not causes or causes[0]["severity"] == "info":
        return ""
    return _three_lines(causes[0])


def _capital(words: str) -> str:
    """Start with a capital letter, but do not change ε and other symbols."""
    return words[:1].upper() + words[1:] if words[:1].isascii() else words


def _three_lines(cause: Cause) -> str:
    repair = f"<p>{markup(offered(cause))}</p>" if cause["refused"] else _code(offered(cause))
    rows = (
        ("Effect", f"<p>{markup(cause['effect'])}</p>"),
        ("Repair", repair),
        ("How sure", f"<p>{markup(surety(cause))}</p>"),
    )
    shown = "".join(f"<div><dt>{name}</dt><dd>{words}</dd></div>" for name, words in rows)
    return f'<dl class="facts cause">{shown}</dl>'


def _cause(diagnosis: Diagnosis, index: int) -> str:
    """Return a cause with its evidence; its findings are collapsed."""
    cause = diagnosis["causes"][index]
    findings = [diagnosis["findings"][at] for at in cause["findings"]]
    groups = "".join(map(_folded, grouped(findings)))
    count = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
    first = index == 0 and cause["severity"] != "info"
    return (
        f'<section class="claim {markup(cause["severity"])}" id="cause-{index}">'
        f'<p class="overline">{markup(cause["severity"].capitalize())} · cause {index + 1}</p>'
        f"<h3>{markup(cause['name'])}</h3>"
        f'<p class="finding">{markup(_capital(cause["evidence"]))}.</p>'
        f"{'' if first else _three_lines(cause)}"
        f"<details><summary>{count}: numbers, thresholds, sources</summary>{groups}</details>"
        "</section>"
    )


def _folded(group: Sequence[Finding]) -> str:
    first = group[0]
    return (
        f'<p class="finding"><b>{first["check"]} {markup(first["name"])}</b> '
        f"({markup(first['severity'])}), {_said(first)}</p>{_numbers(group)}{_source(first)}"
    )


def _said(finding: Finding) -> str:
    where, message = markup(place(finding)), markup(finding["message"])
    return f"<code>{where}</code>: {message}. {markup(finding['why'])}"


def _source(finding: Finding) -> str:
    threshold, citation = markup(finding["threshold"]), markup(finding["citation"])
    return f'<p class="definition">Threshold: {threshold}. {citation}.</p>'


def _contents(causes: Sequence[Cause], groups: Sequence[Sequence[Finding]]) -> str:
    links = "".join(
        f'<li><a href="#cause-{index}">{markup(cause["name"])}</a></li>'
        for index, cause in enumerate(causes)
    )
    links += "".join(
        f'<li><a href="#{_anchor(group)}">{markup(group[0]["name"])} ({len(group)})</a></li>'
        for group in groups
    )
    rest = "".join(
        f'<li><a href="#{name.lower()}">{name}</a></li>'
        for name in ("Healthy", "Skipped", "Examined")
    )
    return (
        '<a class="study" href="#summary">Causes and findings</a>'
        f"<ol>{links or '<li>none</li>'}</ol>"
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
        f'<p class="finding">{_said(first)}</p>{_numbers(group)}{_fixes(group)}'
        f"{_source(first)}</section>"
    )


def _numbers(group: Sequence[Finding]) -> str:
    columns = list(dict.fromkeys(name for finding in group for name in finding["numbers"]))
    rows = [[place(f), *(f["numbers"].get(name) for name in columns)] for f in group]
    layers = f"{len(group)} layers" if len(group) > 1 else "Measured"
    return _table(layers, ["layer", *columns], rows)


def _fixes(group: Sequence[Finding]) -> str:
    """Return the lines of code; equal lines of several layers only once."""
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
        if one["asked"]
    )
    rows += "".join(
        f"<li><b>{markup(name or 'the model')}</b> was not examined: {markup(reason)}</li>"
        for name, reason in diagnosis["not_examined"].items()
    )
    return (
        '<section class="claim missing" id="skipped"><h3>Not checked</h3>'
        f"{f'<ul>{rows}</ul>' if rows else '<p>Nothing that these data could show.</p>'}</section>"
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
