"""Results as words: one line for each case as it comes, and what is behind at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.speed.peers import PEERS

__all__ = ["behind", "behind_lines", "line", "machine", "opening", "parts", "warning"]

Row = Mapping[str, Any]
WIDTH = 58
MOST_LOAD = 0.5  # for each core


def line(row: Row) -> str:
    """Return a line: ours in µs and copies, and each peer's time over ours with quartiles.

    >>> line({"name": "layer/both", "failed": {"liger": "RuntimeError: no"}}).split()
    ['layer/both', 'liger', 'failed:', 'RuntimeError:', 'no']
    """
    return "".join(words for words, _ in parts(row))


def parts(row: Row) -> Iterator[tuple[str, bool]]:
    """Yield the line in parts, each with whether it is bad news."""
    yield f"{row['name']:{WIDTH}}", False
    if "ours" in row.get("us", {}):
        yield from _measured(row)
    for name, reason in row.get("failed", {}).items():
        yield f"  {name} failed: {reason}", True


def _measured(row: Row) -> Iterator[tuple[str, bool]]:
    yield f" {row['us']['ours']['median']:10.1f} µs", False
    yield f" {row['copies']['ours']['median']:6.2f} copies", False
    yield f" {row['gb_per_s']['ours']:7.1f} GB/s {row['share']['ours']:4.0%}", False
    for peer, ratio in row["ratio"].items():
        shown = "{median:.2f} [{low:.2f}, {high:.2f}]".format_map(ratio)
        yield f"  {peer} {shown}", ratio["median"] < 1
    if row["kept"]:
        sizes = (f"{memory['bytes'] / row['input_bytes']:.2f}" for memory in row["kept"].values())
        yield f"  kept {' '.join(sizes)}", False


def machine(about: Mapping[str, Any]) -> str:
    """Name what was measured on."""
    if gpu := about.get("gpu"):
        return f"{gpu['name']}, driver {gpu['driver']}; torch {about['torch']}"
    kernels = f"kernels for {about['isa']}" if about["kernels"] else "no compiled kernels"
    return f"{about['cpu']}, {about['threads']} threads; torch {about['torch']}; {kernels}"


def opening(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield what there is to say when a run begins."""
    yield f"{machine(about)}; allocator: {about['allocator']}"
    if absent := about["settings"]["not_installed"]:
        yield f"not installed: {', '.join(PEERS[name].title for name in absent)}"
    if told := warning(about):
        yield told


def behind(rows: Iterable[Row]) -> dict[str, list[tuple[str, float]]]:
    """Return for each peer the cases in which it is faster than we are, the worst first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        for peer, ratio in row["ratio"].items():
            cases = found.setdefault(peer, [])
            if ratio["median"] < 1:
                cases.append((row["name"], ratio["median"]))
    return {peer: sorted(cases, key=lambda case: case[1]) for peer, cases in found.items()}


def behind_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a heading for each peer, and under it the cases in which we are behind."""
    for peer, cases in behind(rows).items():
        total = sum(peer in row["ratio"] for row in rows)
        yield f"behind {peer} in {len(cases)} of {total} cases"
        yield from (f"  {ratio:.2f}  {name}" for name, ratio in cases)


def warning(about: Mapping[str, Any]) -> str:
    """Say so if other processes were busy when a run began."""
    if not about["load"] or about["load"] < MOST_LOAD * about["cores"]:
        return ""
    return (
        f"The machine is busy (load {about['load']:.1f} on {about['cores']} cores): a thread may "
        "wait long for another, and the figures of small inputs mean nothing."
    )
