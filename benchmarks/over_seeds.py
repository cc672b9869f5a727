"""Benchmarks that train models with several seeds: jobs, the result file, the table of a page."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT
from benchmarks.page import fill
from benchmarks.result_files import about, read, write

__all__ = ["Row", "lost", "run"]

Row = dict[str, Any]


def run(
    name: str,
    page: str,
    description: str | None,
    models: Iterable[str],
    measure: Callable[[tuple[str, int, int]], list[Row]],
    table: Callable[[Sequence[Row]], str],
    epochs: int,
    arguments: Sequence[str] | None,
) -> None:
    """Measure each model and seed; write `name`.json and the table between the markers `name`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    parser.add_argument("--table", action="store_true", help="only write the table of the page")
    options = parser.parse_args(arguments)
    if not options.table:
        jobs = [(model, seed, options.epochs) for seed in range(options.seeds) for model in models]
        described, rows = about("default", {"epochs": options.epochs}), list[Row]()
        with ProcessPoolExecutor(options.workers) as pool:
            for found in pool.map(measure, jobs):
                rows += found
                # What is measured so far is kept if it is interrupted.
                write(options.out, {"about": described, "rows": rows})
    words = table(read(options.out)["rows"])
    seeds = len({row["seed"] for row in read(options.out)["rows"]})
    words = f"{words}\n\nSeeds: {seeds}."
    print(words)
    if options.out.parent == RESULTS:
        fill(ROOT / "docs" / page, name, words)


def lost(rows: Iterable[Row]) -> str:
    """Points of accuracy below the control, median and worst of the seeds.

    >>> lost([{"control": 99.0, "accuracy": 98.0}])
    '1.0 (1.0)'
    """
    found = [row["control"] - row["accuracy"] for row in rows]
    return f"{statistics.median(found):.1f} ({max(found):.1f})" if found else "–"
