"""The parts of the page: the runs, the contents, and for each study its verdict and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.report.claims import claim, missing, summary
from anynorm.report.plots import Page
from anynorm.report.text import last_line, markup
from anynorm.report.verdict import verdict

__all__ = ["STOPPED", "contents", "header", "notice", "study", "unread_text"]

Evidence = Mapping[str, Any]
# Why a study that adds seeds has stopped.
STOPPED = {
    "decided": "every comparison was decided",
    "more seeds would not decide": "more seeds would not decide the open comparisons",
    "most seeds": "32 seeds were reached",
    "out of time": "the time was over",
    "interrupted": "it was interrupted",
}


def header(evidence: Evidence) -> str:
    """Return the facts of the study: runs, seeds, versions, the cost of probing, the command."""
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
    stopped = (
        {"Seeds were added until": STOPPED[evidence["stopped"]]} if evidence["stopped"] else {}
    )
    return {
        "Runs": f"{evidence['runs']}{of}, {evidence['diverged']} diverged",
        "Seeds": ", ".join(map(str, evidence["seeds"])) or "none",
        **stopped,
        "Probing cost": _probing(evidence["probing"]),
        "Versions": ", ".join(versions) or "unknown",
    }


def _probing(probing: Mapping[str, Any]) -> str:
    if probing["share"] is None:
        return "no run was probed"
    seconds = f"{probing['probe_seconds']:.1f} s for {probing['train_seconds']:.1f} s"
    return f"{100 * probing['share']:.0f}% of the training time of the probed runs ({seconds})"


def notice(evidence: Evidence) -> str:
    """Return the warnings that a study is not finished and that records could not be read."""
    return _partial(evidence) + _unread(evidence["unread"])


def unread_text(row: Mapping[str, Any]) -> str:
    """Return as text which part of how many records could not be read, and why."""
    runs = "1 run" if row["runs"] == 1 else f"{row['runs']} runs"
    return f"{row['part']} of {runs}: {row['why']}."


def _unread(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    items = "".join(f"<li>{markup(unread_text(row))}</li>" for row in rows)
    return (
        '<div class="notice" role="status"><b>Damaged records.</b> These parts could not be read. '
        "The rest of this page uses the other parts. To repeat these runs, delete their files and "
        f"run the same command again.<ul>{items}</ul></div>"
    )


def _partial(evidence: Evidence) -> str:
    if not evidence["partial"]:
        return ""
    return (
        f'<div class="notice" role="status"><b>Partial study.</b> {evidence["runs"]} of '
        f"{evidence['planned']} runs are finished, and this page uses only these. Run the same "
        f"command again to finish the rest.{_failures(evidence['failures'])}</div>"
    )


def _failures(failures: Sequence[Mapping[str, Any]]) -> str:
    """Return why runs failed: each reason once, with its runs."""
    return "".join(
        f"<details><summary>{len(row['runs'])} failed: {markup(last_line(row['reason']))}</summary>"
        f"<p>{'<br>'.join(map(markup, row['runs']))}</p>"
        f"<pre>{'<br>'.join(map(markup, row['reason'].splitlines()))}</pre></details>"
        for row in failures
    )


def contents(evidence: Evidence) -> str:
    """Return the table of contents."""
    return "".join(_links(found, f"s{index}") for index, found in enumerate(evidence["studies"]))


def _links(found: Mapping[str, Any], anchor: str) -> str:
    links = "".join(
        f'<li><a href="#{anchor}-{markup(one["id"])}">{markup(one["title"])}</a></li>'
        for one in found["claims"]
    )
    name = f"{markup(found['subject'])} on {markup(found['data'])}"
    return (
        f'<a class="study" href="#{anchor}">{name}</a>'
        f'<ol><li><a href="#{anchor}-verdict">Verdict</a></li>{links}</ol>'
    )


def study(evidence: Evidence, index: int, figures: dict[str, Any]) -> str:
    """Return the verdict and the claims of one study; their figures are added to `figures`."""
    found, anchor = evidence["studies"][index], f"s{index}"
    order = [entry["label"] for entry in found["verdict"]["ranking"]]
    page = Page(evidence["labels"], order, figures)
    claims = "".join(claim(one, f"{anchor}-{one['id']}", page) for one in found["claims"])
    return (
        f'<article id="{anchor}">{verdict(found, f"{anchor}-verdict", page)}'
        f"{summary(found['claims'], anchor)}{claims}{missing(found['missing'])}</article>"
    )
