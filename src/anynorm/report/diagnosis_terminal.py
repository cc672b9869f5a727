"""A diagnosis on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from anynorm.report.diagnosis import grouped, headline, place
from anynorm.report.text import visible

__all__ = ["show"]

Finding = Mapping[str, Any]
STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
LAYERS = 3  # of one check that are shown in full


def show(diagnosis: Mapping[str, Any], console: Console) -> None:
    """Print the result, the findings of each check with the fix, and what was not checked.

    Of the findings of one check the first layers are shown and the others counted.  Names are
    printed as they are: neither rich's markup nor terminal escapes in them do anything.
    """
    found = diagnosis["findings"]
    style = "green" if diagnosis["healthy"] else STYLES[found[0]["severity"]]
    name = Text(visible(diagnosis["facts"]["model"]) + "  ", style="bold")
    console.print(name.append(headline(diagnosis), style=style))
    if note := diagnosis["facts"].get("note"):
        console.print(Text(visible(note), style="dim"))
    for group in grouped(found):
        _group(group, console)
    for one in diagnosis["skipped"]:
        line = f"not checked: {one['check']} {one['name']} needs {one['needs']}"
        console.print(Text(visible(line), style="dim"))


def _group(group: Sequence[Finding], console: Console) -> None:
    first = group[0]
    title = Text(first["severity"], style=STYLES[first["severity"]])
    console.print(title.append(f"  {first['check']} {visible(first['name'])}", style="bold"))
    for line in _lines(group):
        console.print(Padding(line, (0, 0, 0, 2)))


def _lines(group: Sequence[Finding]) -> Iterator[Text]:
    for finding in group[:LAYERS]:
        name = Text(visible(place(finding)), style="bold")
        yield name.append(f": {visible(finding['message'])}", style="not bold")
    if len(group) > LAYERS:
        yield Text(f"and {len(group) - LAYERS} more", style="dim")
    yield Text(visible(group[0]["fix"]), style="cyan")
