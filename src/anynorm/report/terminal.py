"""The verdict on a terminal: what to use, what to look at first, comparisons, ranking, claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from anynorm.report import comparisons, ranking
from anynorm.report.sections import STOPPED, unread_text
from anynorm.report.text import last_line, visible

__all__ = ["show"]

Evidence = Mapping[str, Any]
# The smallest width of the terminal at which each column of the ranking is shown.
WIDTHS = (0, 0, 0, 60, 76, 100, 116, 128, 140)
STYLES = {"better": "green", "shown": "green", "harmful": "red", "contradicted": "red"}


def show(evidence: Evidence, console: Console) -> None:
    """Print each study's verdict, its comparisons and ranking, and what was not measured.

    Columns that do not fit the console's width are left out; text is never cut. Names are printed
    literally: rich's markup and terminal escapes in them have no effect.
    """
    if evidence["partial"]:
        line = f"Partial study: {evidence['runs']} of {evidence['planned']} runs are finished."
        console.print(Text(line, style="yellow"))
    if evidence["stopped"]:
        line = f"Seeds were added until {STOPPED[evidence['stopped']]}."
        console.print(Text(line, style="dim"))
    for row in evidence["failures"]:
        count, first = len(row["runs"]), row["runs"][0]
        line = f"{count} failed, the first is {first}: {last_line(row['reason'])}"
        console.print(Text(visible(line), style="yellow"))
    for row in evidence["unread"]:
        line = f"Damaged records, not read: {unread_text(row)}"
        console.print(Text(visible(line), style="yellow"))
    for study in evidence["studies"]:
        _show(study, console)


def _show(study: Mapping[str, Any], console: Console) -> None:
    verdict = study["verdict"]
    title = f"{study['subject']} on {study['data']}: {verdict['headline']}"
    console.print(Text(visible(title), style="dim"))
    console.print(Text(visible(verdict["recommendation"]), style="bold"))
    _show_causes(verdict["causes"], console)
    if verdict["comparisons"]:
        _section("Comparisons", _comparisons(verdict), console)
    if verdict["ranking"]:
        _section("Ranking", _ranking(study, console.width), console)
    if verdict["sentences"]:
        _section("How this verdict was reached", _lines(verdict["sentences"]), console)
    _show_claims(study["claims"], console)
    if study["missing"]:
        titles = "; ".join(item["title"] for item in study["missing"])
        console.print()
        console.print(Text(f"Not measured: {visible(titles)}", style="dim"))


def _section(title: str, content: Any, console: Console) -> None:
    console.print()
    console.print(Text(title, style="underline"))
    console.print(content)


def _lines(sentences: Sequence[str]) -> Text:
    return Text("\n".join(map(visible, sentences)))


def _show_causes(causes: Sequence[Mapping[str, Any]], console: Console) -> None:
    if not causes:
        return
    console.print()
    console.print(Text("First look at this", style="underline"))
    for cause in causes:
        console.print(Text(visible(cause["sentence"]), style="yellow"))
        action = Text(visible(cause["action"]), style="bold yellow")
        console.print(Padding(action, (0, 0, 0, 2), expand=False))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table


def _comparisons(verdict: Mapping[str, Any]) -> Table:
    difference = f"difference, {verdict['unit']}"
    table = _table("normalizer", "compared with", difference, "interval", "answer")
    order = [entry["label"] for entry in verdict["ranking"]]
    for one in comparisons.ordered(verdict["comparisons"], order):
        size = "diverged" if one["difference"] is None else comparisons.signed(one["difference"])
        names = [Text(visible(one[key])) for key in ("a", "b")]
        answer = Text(one["answer"], style=STYLES.get(one["answer"], ""))
        table.add_row(*names, Text(size), Text(comparisons.interval(one)), answer)
    return table


def _ranking(study: Mapping[str, Any], width: int) -> Table:
    entries, score = study["verdict"]["ranking"], study["score"]
    shown = [index for index, least in enumerate(WIDTHS) if width >= least]
    names = ranking.columns(entries, score)
    table = _table(*(names[index] for index in shown))
    for entry in entries:
        row = ranking.cells(entry, score["percent"])
        table.add_row(*(Text(visible(row[index])) for index in shown))
    return table


def _show_claims(claims: Sequence[Mapping[str, Any]], console: Console) -> None:
    answered = [one for one in claims if one.get("status")]
    if not answered:
        return
    table = _table("statement", "answer")
    for one in answered:
        answer = Text(visible(one["status"]), style=STYLES.get(one["status"], ""))
        table.add_row(Text(visible(one["statement"])), answer)
    _section("What was judged", table, console)
