"""Time every case: ours and torch's in turn, in one run; print the median of the ratios."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES, Case

ROUNDS, ROUND_SECONDS = 15, 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(case) for case in CASES]
    show(rows, options.threads)
    if options.json:
        about = {"torch": torch.__version__, "machine": platform.machine(), **vars(options)}
        options.json.write_text(json.dumps({"about": about, "rows": rows}, default=str, indent=1))


def measure(case: Case) -> dict[str, object]:
    """Medians over the rounds; a ratio above 1 means that ours is faster."""
    row: dict[str, object] = {"case": case.name, "shape": "x".join(map(str, case.shape))}
    for phase in ("forward", "both"):
        ours, theirs = (step(build(), case.shape, phase) for build in (case.ours, case.theirs))
        pairs = alternate(ours, theirs)
        row[f"{phase}_us"] = statistics.median(mine for mine, _ in pairs) * 1e6
        row[f"{phase}_ratio"] = statistics.median(torchs / mine for mine, torchs in pairs)
    return row


def step(layer: torch.nn.Module, shape: tuple[int, ...], phase: str) -> Callable[[], object]:
    x = torch.randn(shape, requires_grad=True)
    dy = torch.randn(shape)

    def both() -> None:
        torch.autograd.grad(layer(x), (x, *layer.parameters()), dy)

    return both if phase == "both" else lambda: layer(x)


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object]
) -> list[tuple[float, float]]:
    """Seconds for one call of each, in rounds A B, B A, …, after a warm-up."""
    count = calls_in(ROUND_SECONDS, theirs)
    seconds(ours, count)
    pairs = []
    for index in range(ROUNDS):
        order = (ours, theirs) if index % 2 else (theirs, ours)
        first, second = (seconds(function, count) for function in order)
        pairs.append((first, second) if index % 2 else (second, first))
    return pairs


def calls_in(duration: float, function: Callable[[], object]) -> int:
    seconds(function, 3)
    return max(1, int(duration / seconds(function, 3)))


def seconds(function: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count


def show(rows: list[dict[str, object]], threads: int) -> None:
    table = Table(
        title=f"torch.nn's time over ours, torch {torch.__version__}, {threads} thread(s)"
    )
    for name in ("case", "shape"):
        table.add_column(name)
    for name in ("forward µs", "ratio", "forward + backward µs", "ratio"):
        table.add_column(name, justify="right")
    for row in rows:
        figures = [row[k] for k in ("forward_us", "forward_ratio", "both_us", "both_ratio")]
        table.add_row(str(row["case"]), str(row["shape"]), *(f"{figure:.2f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
