"""Results for the terminal: one line for each case as it comes, and what is behind at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

__all__ = ["behind", "line", "show_behind", "warning"]

WIDTH = 58
MOST_LOAD = 0.5  # for each core


def line(row: Mapping[str, Any]) -> Text:
    """Return a line: ours in µs and copies, and each peer's time over ours with quartiles."""
    text = Text(f"{row['name']:{WIDTH}} {row['us']['ours']['median']:10.1f} µs")
    text.append(f" {row['copies']['ours']['median']:6.2f} copies")
    for peer, ratio in row["ratio"].items():
        shown = "{median:.2f} [{low:.2f}, {high:.2f}]".format_map(ratio)
        text.append(f"  {peer} {shown}", "bold red" if ratio["median"] < 1 else "")
    if row["kept"]:
        kept = (f"{row['kept'][name]['bytes'] / row['input_bytes']:.2f}" for name in row["kept"])
        text.append(f"  kept {' '.join(kept)}")
    return text


def behind(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[str, float]]]:
    """Return for each peer the cases in which it is faster than we are, the worst first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        for peer, ratio in row["ratio"].items():
            cases = found.setdefault(peer, [])
            if ratio["median"] < 1:
                cases.append((row["name"], ratio["median"]))
    return {peer: sorted(cases, key=lambda case: case[1]) for peer, cases in found.items()}


def warning(about: Mapping[str, Any]) -> str:
    """Say so if other processes were busy when a run began."""
    if not about["load"] or about["load"] < MOST_LOAD * about["cores"]:
        return ""
    return (
        f"The machine is busy (load {about['load']:.1f} on {about['cores']} cores): a thread may "
        "wait long for another, and the figures of small inputs mean nothing."
    )


def show_behind(console: Console, setting: str, rows: Sequence[Mapping[str, Any]]) -> None:
    for peer, cases in behind(rows).items():
        total = sum(peer in row["ratio"] for row in rows)
        console.print(f"{setting}: behind {peer} in {len(cases)} of {total} cases", style="bold")
        for name, ratio in cases:
            console.print(f"  {ratio:.2f}  {name}", highlight=False)
