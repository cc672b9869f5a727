"""What a folder of results of a GPU says: goals, whole models, every case, and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anynorm.report.files import write_whole
from benchmarks.gpu_correctness import outcome_lines
from benchmarks.page import commit, line, tables
from benchmarks.result_files import read
from benchmarks.speed.dots import draw
from benchmarks.speed.goals import goal_lines
from benchmarks.speed.peers import PEERS

__all__ = ["collected", "layers", "summarize", "words"]

Result = Mapping[str, Any]
Row = Mapping[str, Any]


def collected(folder: Path) -> list[Result]:
    """The results in a folder, the oldest first."""
    found = [read(file) for file in folder.glob("*.json")]
    return sorted(found, key=lambda result: result["about"]["date"])


def layers(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if "cases" in result]


def words(results: Sequence[Result]) -> str:
    """The whole as Markdown."""
    found = layers(results)
    parts = ["\n".join(goal_lines(found)), "\n".join(_models(results)), "\n".join(_all(found))]
    return "\n\n".join(part for part in parts if part)


def _models(results: Sequence[Result]) -> Iterator[str]:
    """Step time and peak memory of each model, layout and contestant."""
    rows = [(result, row) for result in results for row in result.get("network", ())]
    if rows:
        yield "| model | layout | contestant | a step | peak | commit |"
        yield "|---|---|---|---|---|---|"
    for result, row in rows:
        model = result["about"]["settings"]["model"]
        for name, found in row["ms"].items():
            time = f"{found['median']:.1f} ms [{found['low']:.1f}, {found['high']:.1f}]"
            peak = f"{row['memory'][name]['peak']:.0f} MB"
            told = name.replace("ours", "anynorm").replace("eager", "torch.nn")
            yield line([model, row["layout"], told, time, peak, commit(result["about"])])


def _all(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        met = {peer for row in result["cases"] for peer in row["ratio"]}
        columns = {name: peer.title for name, peer in PEERS.items() if name in met}
        about = result["about"]
        cases = f"{len(result['cases'])} of {about['wanted']} cases"
        yield f"Commit {commit(about)}, {about['date'][:10]}, {cases}:\n"
        yield tables([result], columns, _bandwidth) + "\n"


def _bandwidth(row: Row) -> str:
    figures = row["copies"]["ours"]["median"], row["gb_per_s"]["ours"], row["share"]["ours"]
    return "{:.2f} ({:.0f} GB/s, {:.0%})".format(*figures)


def summarize(folder: Path) -> str:
    """Write the summary and the picture beside the results; return the summary's first part."""
    tested, results = list(outcome_lines(folder)), collected(folder)
    found = layers(results)
    if not tested and not found:
        return "nothing was measured"
    parts = ["\n".join(tested), words(results) if found else ""]
    write_whole(folder / "summary.md", "\n\n".join(part for part in parts if part) + "\n")
    if not found:
        return "\n".join(tested)
    write_whole(folder / "speed.svg", draw(found))
    return "\n".join([*tested, *goal_lines(found), "", *_models(results)])
