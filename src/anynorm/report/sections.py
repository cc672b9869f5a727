"""The parts of the page: what was run, the verdict with its ranking, and one section per claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.figures import draw
from anynorm.report.figures.style import style
from anynorm.report.ranking import COLUMNS, cells
from anynorm.report.text import cell, last_line, markup, visible

__all__ = ["contents", "header", "notice", "study"]

Evidence = Mapping[str, Any]
LONG = 28  # characters of a name that a table may break into lines


def header(evidence: Evidence) -> str:
    """Return what was run: runs, seeds, versions, the cost of probing, and the command."""
    rows = "".join(
        f"<div><dt>{markup(name)}</dt><dd>{markup(value)}</dd></div>"
        for name, value in _facts(evidence).items()
    )
    command = ""
    if evidence["command"]:
        command = f'<p class="command"><code>{markup(evidence["command"])}</code></p>'
    return f'<dl class="facts">{rows}</dl>{command}'


def _facts(evidence: Evidence) -> dict[str, str]:
    planned = evidence["planned"]
    of = f" of {planned}" if evidence["partial"] else ""
    versions = [f"{name} {' and '.join(v)}" for name, v in evidence["environment"].items()]
    return {
        "Runs": f"{evidence['runs']}{of}, {evidence['diverged']} diverged",
        "Seeds": ", ".join(map(str, evidence["seeds"])) or "none",
        "Probing cost": _probing(evidence["probing"]),
        "Versions": ", ".join(versions) or "unknown",
    }


def _probing(probing: Mapping[str, Any]) -> str:
    if probing["share"] is None:
        return "no run was probed"
    seconds = f"{probing['probe_seconds']:.1f} s for {probing['train_seconds']:.1f} s"
    return f"{100 * probing['share']:.0f}% of the training time of the probed runs ({seconds})"


def notice(evidence: Evidence) -> str:
    """Return the warning that a study is not finished; nothing for one that is."""
    if not evidence["partial"]:
        return ""
    return (
        f'<div class="notice" role="status"><b>Partial study.</b> {evidence["runs"]} of '
        f"{evidence['planned']} runs are finished; everything below rests on those. Run the same "
        f"command again to finish the rest.{_failures(evidence['failures'])}</div>"
    )


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    """Return why runs failed: each reason once, with the runs that it ended."""
    return "".join(
        f"<details><summary>{len(row['runs'])} failed: {markup(last_line(row['reason']))}</summary>"
        f"<p>{'<br>'.join(map(markup, row['runs']))}</p>"
        f"<pre>{'<br>'.join(map(markup, row['reason'].splitlines()))}</pre></details>"
        for row in failures
    )


def contents(evidence: Evidence) -> str:
    """Return the table of contents."""
    parts = []
    for index, found in enumerate(evidence["studies"]):
        links = "".join(
            f'<li><a href="#{_anchor(index, claim["id"])}">{markup(claim["title"])}</a></li>'
            for claim in found["claims"]
        )
        name = f"{markup(found['subject'])} on {markup(found['data'])}"
        parts.append(f'<a class="study" href="#s{index}">{name}</a><ol>{links}</ol>')
    return "".join(parts)


def _anchor(index: int, claim: str) -> str:
    return f"s{index}-{claim}"


def study(evidence: Evidence, index: int, figures: dict[str, Any]) -> str:
    """Return the verdict and the claims of one study; their figures are added to `figures`."""
    found, labels = evidence["studies"][index], evidence["labels"]
    claims = "".join(
        _claim(claim, _anchor(index, claim["id"]), labels, figures) for claim in found["claims"]
    )
    return (
        f'<article id="s{index}">{_verdict(found, f"s{index}-verdict", labels, figures)}'
        f"{claims}{_missing(found['missing'])}</article>"
    )


def _verdict(
    found: Mapping[str, Any], anchor: str, labels: Sequence[str], figures: dict[str, Any]
) -> str:
    verdict = found["verdict"]
    sentences = "".join(f"<li>{markup(text)}</li>" for text in verdict["sentences"])
    ranking = ""
    if verdict["ranking"]:
        ranking = _figure(verdict["figure"], anchor, labels, figures) + _ranking(found, labels)
    return (
        f'<section class="verdict {markup(verdict["kind"]).replace(" ", "-")}">'
        f'<p class="overline">Verdict · {markup(found["subject"])} on {markup(found["data"])}</p>'
        f"<h2>{markup(verdict['headline'])}</h2>{_recommended(verdict)}"
        f'<p class="finding">{markup(verdict["reason"])}</p>{ranking}'
        f'<ul class="evidence">{sentences}</ul>'
        f'<p class="definition">Base setting: {markup(found["base"])}.</p></section>'
    )


def _recommended(verdict: Mapping[str, Any]) -> str:
    if verdict["kind"] != "undecided" or verdict["recommended"] is None:
        return ""
    return f'<p class="lean">Leaning to <b>{markup(verdict["recommended"])}</b></p>'


def _ranking(found: Mapping[str, Any], labels: Sequence[str]) -> str:
    rows = [cells(entry, found["score"]["percent"]) for entry in found["verdict"]["ranking"]]
    columns = [found["score"]["name"] if name == "score" else name for name in COLUMNS]
    return _table({"caption": "Ranking", "columns": columns, "rows": rows}, labels, name_at=1)


def _claim(
    claim: Mapping[str, Any], anchor: str, labels: Sequence[str], figures: dict[str, Any]
) -> str:
    tables = "".join(_table(table, labels) for table in claim["tables"])
    return (
        f'<section class="claim" id="{markup(anchor)}"><h3>{markup(claim["title"])}'
        f"{_status(claim['status'])}</h3>{_statement(claim['statement'])}"
        f'<p class="finding">{markup(claim["sentence"])}</p>'
        f"{_figure(claim['figure'], f'{anchor}-figure', labels, figures)}"
        f'<p class="definition">{markup(claim["definition"])}</p>'
        f"<details><summary>Numbers</summary>{tables}</details></section>"
    )


def _status(status: str) -> str:
    kind = markup(status).replace(" ", "-")
    return f' <span class="status {kind}">{markup(status)}</span>' if status else ""


def _statement(statement: str) -> str:
    return f'<p class="statement">{markup(statement)}</p>' if statement else ""


def _figure(
    figure: Mapping[str, Any], name: str, labels: Sequence[str], figures: dict[str, Any]
) -> str:
    figures[name] = draw(figure, labels)
    height = figures[name]["layout"]["height"]
    return (
        f"<figure>{_legend(figure, labels)}"
        f'<div class="plot" data-figure="{markup(name)}" style="height:{height}px"></div></figure>'
    )


def _legend(figure: Mapping[str, Any], labels: Sequence[str]) -> str:
    """Return the legend above a figure: normalizers to show and hide, or the meaning of marks."""
    if figure["kind"] == "series":
        return _toggles(figure, labels)
    if figure["kind"] == "heat":
        return (
            '<p class="key">Outlined: every seed trains well. Dotted: every seed trains at all. '
            "✕: a seed diverged.</p>"
        )
    marks = dict.fromkeys(row["mark"] for panel in figure["panels"] for row in panel["rows"])
    signs = zip(("●", "◇", "□"), marks, strict=False)
    shown = "".join(f"<span>{sign} {markup(mark)}</span>" for sign, mark in signs if mark)
    return f'<p class="key">{shown}</p>' if shown else ""


def _toggles(figure: Mapping[str, Any], labels: Sequence[str]) -> str:
    names = dict.fromkeys(name for panel in figure["panels"] for name in panel["series"])
    focus = figure.get("focus", list(names))
    buttons = "".join(_chip(name, name in focus, labels) for name in names)
    return f'<div class="legend" role="group" aria-label="Normalizers shown">{buttons}</div>'


def _chip(name: str, shown: bool, labels: Sequence[str]) -> str:
    return (
        f'<button type="button" class="chip" data-series="{labels.index(name)}" '
        f'aria-pressed="{str(shown).lower()}" title="{markup(name)}">'
        f"{_swatch(name, labels)}<span>{markup(name)}</span></button>"
    )


def _swatch(name: str, labels: Sequence[str]) -> str:
    look = style(name, labels)
    hue = look["color"].removeprefix("@")
    return f'<i class="swatch" data-dash="{look["dash"]}" style="--c:var(--hue-{hue})"></i>'


def _table(table: Mapping[str, Any], labels: Sequence[str], name_at: int = 0) -> str:
    head = "".join(f'<th scope="col">{markup(column)}</th>' for column in table["columns"])
    body = "".join(
        f"<tr>{''.join(_cell(v, i == name_at, labels) for i, v in enumerate(row))}</tr>"
        for row in table["rows"]
    )
    return (
        f'<div class="table"><div class="bar"><span>{markup(table["caption"])}</span>'
        f'<button type="button" class="copy">Copy</button></div><div class="scroll" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _cell(value: Any, is_name: bool, labels: Sequence[str]) -> str:
    if is_name and value in labels:
        long = ' class="long"' if len(value) > LONG else ""
        return f'<th scope="row"{long}>{_swatch(value, labels)}{markup(value)}</th>'
    text = markup(cell(value))
    if isinstance(value, str):
        return f"<td>{text}</td>"
    return f'<td class="number">{text}</td>'


def _missing(missing: Sequence[Mapping[str, str]]) -> str:
    if not missing:
        return ""
    rows = "".join(
        f"<li><b>{markup(item['title'])}</b>: {markup(visible(item['reason']))}</li>"
        for item in missing
    )
    return f'<section class="claim missing"><h3>Not measured</h3><ul>{rows}</ul></section>'
