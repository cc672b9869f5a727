"""The network's table in docs/speed.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.page import commit, line, middle

__all__ = ["table"]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each setting of the allocator and layout."""
    settings = results[0]["about"]["settings"]
    lines = [
        f"Batch {settings['batch']}, {settings['size']}² pixels, width {settings['width']}; "
        f"commit {commit(results[0]['about'])}, "
        f"{results[0]['about']['date'][:10]}.",
        "",
        "| allocator | layout | a step | torch.nn | ratio | peak | torch.nn | losses differ by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        lines += [_line(result["about"]["allocator"], row) for row in result["network"]]
    return "\n".join(lines)


def _line(setting: str, row: Mapping[str, Any]) -> str:
    ours, eager = (row["ms"][name]["median"] for name in ("ours", "eager"))
    ratio = row["ratio"]
    peaks = (f"{row['memory'][name]['peak']:.0f} MB" for name in ("ours", "eager"))
    cells = (
        setting,
        row["layout"],
        f"{ours:.0f} ms",
        f"{eager:.0f} ms",
        f"{middle(ratio)} [{ratio['low']:.2f}, {ratio['high']:.2f}]",
        *peaks,
        f"{row['loss_difference']:.0e}",
    )
    return line(cells)
