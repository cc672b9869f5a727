"""The tables of docs/speed.md, written between its markers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anynorm.report.files import write_whole
from benchmarks.speed.dots import label, shape_text
from benchmarks.speed.peers import PEERS as ALL
from benchmarks.speed.show import behind, warning

__all__ = [
    "cases_table",
    "commit",
    "fill",
    "line",
    "middle",
    "quartiles",
    "summary",
    "surroundings",
    "tables",
]

Row = Mapping[str, Any]
PHASES = ("forward", "both", "evaluation")
PEERS = {name: ALL[name].title for name in ("eager", "compile", "jax")}  # on a processor


def fill(page: Path, name: str, words: str) -> None:
    """Put `words` between the markers ``<!-- name -->`` and ``<!-- end of name -->``."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text("utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"{page} has no markers {start} … {end}")
    write_whole(page, f"{before}{start}\n{words}\n{end}{after}")


def quartiles(low: float, median: float, high: float) -> str:
    """A ratio with its quartiles.

    >>> quartiles(0.9, 1.0, 1.234)
    '1.00 (0.90 to 1.23)'
    """
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """Say what was measured on what, and in how many cases we are behind whom."""
    lines = [surroundings([result["about"] for result in results]), ""]
    lines += ["| allocator | against | cases | median ratio | behind in |", "|---|---|---|---|---|"]
    for result in results:
        lost = behind(result["cases"])
        for peer, name in PEERS.items():
            rows = [row for row in result["cases"] if peer in row["ratio"]]
            if rows:
                typical = statistics.median(row["ratio"][peer]["median"] for row in rows)
                cells = result["about"]["allocator"], name, len(rows), f"{typical:.2f}"
                lines.append(line([*map(str, cells), str(len(lost[peer]))]))
    return "\n".join(lines)


def surroundings(abouts: Sequence[Mapping[str, Any]]) -> str:
    """Say on which machine, with which versions, and when results were measured."""
    about = abouts[0]
    kernels = f"kernels for {about['isa']}" if about["kernels"] else "no compiled kernels"
    changed = ", with uncommitted changes" if any(about["dirty"] for about in abouts) else ""
    commits = " and ".join(dict.fromkeys(commit(about) for about in abouts))
    busy = next((f" {told}" for about in abouts if (told := warning(about))), "")
    return (
        f"{about['cpu']}, {about['threads']} threads, {about['system']}; torch {about['torch']}, "
        f"{kernels}; commit {commits}{changed}; {about['date'][:10]}.{busy}"
    )


def cases_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a foldable table for each normalizer: a line for each case, settings by a slash."""
    settings = " / ".join(result["about"]["allocator"] for result in results)
    return f"Allocator: {settings}.\n\n{tables(results, PEERS)}"


def _copies(row: Row) -> str:
    return f"{row['copies']['ours']['median']:.1f}"


def tables(
    results: Sequence[Mapping[str, Any]],
    peers: Mapping[str, str],
    cost: Callable[[Row], str] = _copies,
) -> str:
    """The tables alone, with our `cost` and a column for each peer."""
    names = dict.fromkeys(row["name"] for result in results for row in result["cases"])
    by_name = [{row["name"]: row for row in result["cases"]} for result in results]
    found: dict[str, list[str]] = {}
    for name in names:
        rows = [by.get(name) for by in by_name]
        known = next(row for row in rows if row is not None)
        found.setdefault(known["normalizer"], []).append(_case(known, rows, peers, cost))
    return "\n".join(_folded(name, lines, peers) for name, lines in found.items())


def _folded(normalizer: str, lines: Sequence[str], peers: Mapping[str, str]) -> str:
    names = ["case", "phase", "copies", "kept (torch.nn)", *peers.values()]
    head = [line(names), "|---|---|" + "---|" * (len(names) - 2)]
    title = f"<summary>{normalizer}: {len(lines)} cases</summary>"
    return "\n".join(["<details>", title, "", *head, *lines, "", "</details>"])


def _case(
    known: Row, rows: Sequence[Row | None], peers: Mapping[str, str], cost: Callable[[Row], str]
) -> str:
    name = f"{label(known)}, {known['layout']}, {shape_text(known['shape'])}"
    copies = " / ".join(cost(row) if row else "–" for row in rows)
    ratios = (" / ".join(_ratio(row, peer) for row in rows) for peer in peers)
    phase = known["phase"].replace("both", "forward + backward")
    return line([f"{name}, {known['dtype']}", phase, copies, _kept(known), *ratios])


def _ratio(row: Row | None, peer: str) -> str:
    """A median and half the distance of the quartiles."""
    if row is None or peer not in row["ratio"]:
        return "–"
    ratio = row["ratio"][peer]
    return f"{middle(ratio)} ±{(ratio['high'] - ratio['low']) / 2:.2f}"


def middle(ratio: Mapping[str, float]) -> str:
    """Return the median, bold where we are behind."""
    return f"**{ratio['median']:.2f}**" if ratio["median"] < 1 else f"{ratio['median']:.2f}"


def commit(about: Mapping[str, Any]) -> str:
    """Return the start of the commit that was measured."""
    return (about["commit"] or "unknown")[:10]


def _kept(row: Row) -> str:
    """Bytes kept for backward over those of the input: ours, and torch.nn's in parentheses."""
    if not row["kept"].keys() >= {"ours", "eager"}:
        return "–"
    ours, eager = (row["kept"][name]["bytes"] / row["input_bytes"] for name in ("ours", "eager"))
    return f"{ours:.2f} ({eager:.2f})"


def line(cells: Iterable[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"
