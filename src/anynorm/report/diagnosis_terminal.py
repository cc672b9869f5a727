"""A diagnosis on a terminal: first the cause, its effect, the repair, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from anynorm.report.diagnosis import (
    asked,
    folded,
    grouped,
    headline,
    offered,
    place,
    surety,
)
from anynorm.report.text import visible

__all__ = ["show"]

Finding = Mapping[str, Any]
STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
LAYERS = 3  # of one check that are shown in full
NOT_EXAMINED = 5  # layers that are named


def show(diagnosis: Mapping[str, Any], console: Console) -> None:
    """Print the causes with what each did and its repair, then the findings under them.

    The first four lines are the worst cause, what it did to the predictions, the repair, and how
    sure that is.  Of the findings of one check the first layers are shown and the others counted.
    Names are printed as they are: neither rich's markup nor terminal escapes in them do anything.
    """
    _first_line(diagnosis, console)
    causes = [one for one in diagnosis["causes"] if one["severity"] != "info"]
    for index, cause in enumerate(causes):
        _cause(cause, console, first=index == 0)
    for index, cause in enumerate(causes):
        title = f"{index + 1}. {cause['name']}" if len(causes) > 1 else cause["name"]
        _said(console, "")
        _said(console, title, "bold")
        _said(console, f"{cause['evidence']}.", indent=2)
        for group in grouped([diagnosis["findings"][at] for at in cause["findings"]]):
            _group(group, console)
    others = folded(diagnosis, causes)
    if causes and others:
        _said(console, "")
        _said(console, "besides", "bold")
    for group in grouped(others):
        _group(group, console, fix=True)
    _rest(diagnosis, console)


def _first_line(diagnosis: Mapping[str, Any], console: Console) -> None:
    style = {0: "green", 1: "bold red", 3: "yellow"}.get(diagnosis["status"], "")
    name = Text(visible(diagnosis["facts"]["model"]) + "  ", style="bold")
    console.print(name.append(visible(headline(diagnosis)), style=style))


def _cause(cause: Mapping[str, Any], console: Console, *, first: bool) -> None:
    """Three lines: the effect, the repair, how sure it is; with its name if it is not the first."""
    if not first:
        _said(console, f"also: {cause['name']}", STYLES[cause["severity"]])
    for label, words, style in (
        ("effect", cause["effect"], ""),
        ("repair", offered(cause), "cyan"),
        ("sure", surety(cause), ""),
    ):
        line = Text(f"{label:<8}", style="dim")
        console.print(line.append(visible(words), style=style or "not dim"))


def _said(console: Console, words: str, style: str = "", indent: int = 0) -> None:
    line = Text(visible(words), style=style)
    console.print(Padding(line, (0, 0, 0, indent), expand=False) if indent else line)


def _group(group: Sequence[Finding], console: Console, *, fix: bool = False) -> None:
    first = group[0]
    title = Text(f"  {first['severity']}", style=STYLES[first["severity"]])
    console.print(title.append(f"  {first['check']} {visible(first['name'])}", style="not bold"))
    for line in _lines(group):
        console.print(Padding(line, (0, 0, 0, 4), expand=False))
    if fix:
        console.print(
            Padding(Text(visible(first["fix"]), style="cyan"), (0, 0, 0, 4), expand=False)
        )


def _lines(group: Sequence[Finding]) -> Iterator[Text]:
    for finding in group[:LAYERS]:
        name = Text(visible(place(finding)), style="bold")
        yield name.append(f": {visible(finding['message'])}", style="not bold")
    if len(group) > LAYERS:
        yield Text(f"and {len(group) - LAYERS} more", style="dim")


def _rest(diagnosis: Mapping[str, Any], console: Console) -> None:
    """Layers that were not examined, and what is needed to run more checks."""
    if note := diagnosis["facts"].get("note"):
        _said(console, note, "dim")
    left = list(diagnosis["not_examined"].items())
    for name, reason in left[:NOT_EXAMINED]:
        _said(console, f"not examined: {name or 'the model'}: {reason}", "dim")
    if len(left) > NOT_EXAMINED:
        _said(console, f"and {len(left) - NOT_EXAMINED} more layers not examined", "dim")
    for needs, checks in asked(diagnosis).items():
        _said(console, f"not checked: {', '.join(checks)}: needs {needs}", "dim")
