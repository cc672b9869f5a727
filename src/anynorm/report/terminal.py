"""The verdict and the ranking on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anynorm.report.ranking import COLUMNS, cells
from anynorm.report.text import last_line, visible

__all__ = ["show"]

Evidence = Mapping[str, Any]
# Columns that a narrow terminal does without, in the order of the widths at which they appear.
WIDTHS = (0, 0, 0, 60, 80, 100, 110, 120, 130)


def show(evidence: Evidence, console: Console) -> None:
    """Print each study's verdict, its ranking, and what was not measured.

    Columns that do not fit the console's width are left out. Names are printed as they are:
    neither rich's markup nor terminal escapes in them do anything.
    """
    if evidence["partial"]:
        line = f"Partial study: {evidence['runs']} of {evidence['planned']} runs are finished."
        console.print(Text(line, style="yellow"))
    for row in evidence["failures"]:
        line = f"{len(row['runs'])} failed, {row['runs'][0]} first: {last_line(row['reason'])}"
        console.print(Text(visible(line), style="yellow"))
    for study in evidence["studies"]:
        _show(study, console)


def _show(study: Mapping[str, Any], console: Console) -> None:
    verdict = study["verdict"]
    console.print(Text(f"{visible(study['subject'])} on {visible(study['data'])}", style="dim"))
    console.print(Text(visible(verdict["headline"]), style="bold"))
    console.print(Text(visible(verdict["reason"])))
    if verdict["ranking"]:
        console.print(_ranking(study, console.width))
    for sentence in verdict["sentences"]:
        console.print(Text(visible(sentence)))
    for claim in study["claims"]:
        if claim["status"]:
            line = f"{claim['title']}: {claim['status']}. {claim['statement']}"
            console.print(Text(visible(line)))
    if study["missing"]:
        titles = ", ".join(item["title"] for item in study["missing"])
        console.print(Text(f"Not measured: {titles}.", style="dim"))


def _ranking(study: Mapping[str, Any], width: int) -> Table:
    percent = study["score"]["percent"]
    shown = [index for index, least in enumerate(WIDTHS) if width >= least]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index in shown:
        name = study["score"]["name"] if COLUMNS[index] == "score" else COLUMNS[index]
        unit = " (%)" if COLUMNS[index] == "score" and percent else ""
        table.add_column(Text(name + unit), overflow="fold")
    for entry in study["verdict"]["ranking"]:
        row = cells(entry, percent)
        table.add_row(*(Text(visible(row[index])) for index in shown))
    return table
