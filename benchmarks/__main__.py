"""Time every case beside torch eager, torch.compile and JAX (where installed), in alternation.

    python -m benchmarks                                # all, in less than fifteen minutes
    python -m benchmarks --quick                        # a few shapes, in less than two
    python -m benchmarks --only 'batch.*channels_last'  # cases by a regular expression

Both settings of the allocator are measured, each in a process of its own.  A ratio is a peer's
time over ours: above 1 we are faster.  A complete run is written to benchmarks/results; then
``python -m benchmarks.picture`` draws the picture and the table of docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import ROOT
from benchmarks.cases import CASES, Case, quick, select
from benchmarks.child import command
from benchmarks.measure import PEERS, measure
from benchmarks.results import RESULTS, about, file_name, load, write
from benchmarks.settings import SETTINGS, adopt
from benchmarks.show import line, show_behind, warning
from benchmarks.timing import Budget

QUICK = Budget(seconds=0.1, fewest=3, most=7)


def main() -> None:
    options = parse()
    if options.list:
        print(*(case.name for case in chosen(options)), sep="\n")
    elif options.one:
        run_here(options)
    else:
        run_all(options)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a regular expression for the cases' names")
    parser.add_argument("--quick", action="store_true", help="a few shapes, less often, eager only")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and end")
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="by default all")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--threads", type=int, help="by default as many as torch takes")
    parser.add_argument("--seconds", type=float, help="for each case and phase")
    parser.add_argument("--results", type=Path, help="a folder to write to, complete run or not")
    parser.add_argument("--one", choices=SETTINGS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> list[Case]:
    return select(quick(CASES) if options.quick else CASES, options.only)


def run_here(options: argparse.Namespace) -> None:
    """Measure one setting in this process: a line of JSON for the run, then one for each case."""
    adopt(options.one)
    if options.threads:
        torch.set_num_threads(options.threads)
    budget = QUICK if options.quick else Budget()
    if options.seconds:
        budget = Budget(seconds=options.seconds, fewest=budget.fewest, most=budget.most)
    peers = options.peers or (PEERS[:1] if options.quick else PEERS)
    settings = {"only": options.only, "quick": options.quick, "peers": peers, **vars(budget)}
    print(json.dumps(about(options.one, settings)), flush=True)
    for row in measure(chosen(options), peers, budget):
        print(json.dumps(row), flush=True)


def run_all(options: argparse.Namespace) -> None:
    """Measure each setting in a process of its own; show what comes, then write it."""
    console = Console(soft_wrap=True)
    complete = not (options.quick or options.only or options.peers or options.seconds)
    others = load()  # before our own children run
    folder = options.results or (RESULTS if complete else None)
    for setting in options.settings:
        console.print(f"allocator: {setting}", style="bold")
        lines = child(setting)
        described, rows = next(lines, None), []
        if described is None:  # the child has said why
            continue
        described["load"] = others
        if told := warning(described):
            console.print(told, style="bold red")
        for row in lines:
            rows.append(row)
            console.print(line(row))
        show_behind(console, setting, rows)
        if folder:
            write(folder / file_name(described), {"about": described, "cases": rows})
            console.print(f"written: {folder / file_name(described)}")


def child(setting: str) -> Iterator[dict[str, Any]]:
    """Yield what another process with these very arguments measures in one setting."""
    call = command("benchmarks", *sys.argv[1:], "--one", setting)
    with subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = 0
        for text in process.stdout:
            seen += 1
            yield json.loads(text)
    if process.returncode and seen:
        raise SystemExit(f"the run with allocator {setting} broke off")


if __name__ == "__main__":
    main()
