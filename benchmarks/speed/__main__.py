"""The layers beside torch.nn, torch.compile, JAX and other packages, in every case.

    python -m benchmarks.speed [--grid small] [--device cuda] [--peers eager compile] [--out FILE]

On a processor the cases run with both settings of the allocator, each in a process of its own.
Ratios are the others' time over ours.  Exit status 1 says that something failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from anynorm.bench import Case, resolve
from anynorm.errors import AnynormError
from anynorm.report.files import check_target, write_whole
from benchmarks import script
from benchmarks.process import SETTINGS
from benchmarks.result_files import Result, read, target
from benchmarks.speed import run
from benchmarks.speed.dots import draw
from benchmarks.speed.goals import goal_lines
from benchmarks.speed.grids import grid, select
from benchmarks.speed.show import behind_lines, opening, parts

__all__ = ["main"]

FIELDS = ("normalizer", "layout", "dtype", "fusion", "phase")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the cases, compare results with the goals, or measure."""
    options = vars(_parser().parse_args(arguments))
    listed, goals = options.pop("list"), options.pop("goals")
    device = resolve(options.pop("device"))
    name = options.pop("grid") or ("full" if device == "cpu" else "goals")
    cases = select(grid(name), **{field: options.pop(field) for field in (*FIELDS, "only")})
    if goals is not None:
        print(*goal_lines([read(Path(file)) for file in goals]), sep="\n")
    elif not cases:
        raise AnynormError(f"no case of the grid {name} is like that; --list prints all that are.")
    elif listed:
        print(*(case.name for case in cases), sep="\n")
    elif not _measure(cases, name, device, **options):
        raise SystemExit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_cases(parser)
    _add_run(parser)
    _add_files(parser)
    return parser


def _add_cases(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    grid = "full, small, rows, images, launch, goals (full on a processor, goals on a GPU)"
    add("--grid", help=grid)
    for name in FIELDS:
        add(f"--{name}", nargs="+", metavar=name.upper(), help="only cases with these (all)")
    add("--only", default="", metavar="REGEX", help="only cases in whose names this is found (all)")
    add("--list", action="store_true", help="print the names of the cases, and end (no)")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    seconds = "seconds to time a case (0.4; 0.25 on a GPU; 0.1 for the grid small)"
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto (auto: a GPU if there is one)")
    add("--peers", nargs="+", metavar="PEER", help="the others (all that are installed)")
    add("--allocator", nargs="+", choices=SETTINGS, help="on a processor (both)")
    add("--threads", type=int, help="threads of torch (its own default)")
    add("--seconds", type=float, help=seconds)


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    out = "write the results; in a folder the file is named by the machine (no)"
    goals = "compare results with the goals, and end (no)"
    add("--out", metavar="FILE.json", help=out)
    add("--picture", metavar="FILE.svg", help="draw the ratios to torch.nn (no)")
    add("--goals", nargs="+", metavar="FILE.json", help=goals)


def _measure(
    cases: Sequence[Case],
    grid: str,
    device: str,
    *,
    peers: Sequence[str] | None,
    allocator: Sequence[str] | None,
    seconds: float | None,
    out: str | None,
    picture: str | None,
    threads: int | None,
) -> bool:
    """Whether everything could be measured."""
    for path, kind in ((out, "result"), (picture, "picture")):
        if path is not None and path.endswith((".json", ".svg")):
            check_target(path, kind)
    budget = run.BUDGETS["small" if grid == "small" else device.partition(":")[0]]
    if seconds is not None:
        budget = replace(budget, seconds=seconds)
    names = [name for words in peers or () for name in words.split(",")]
    settings = allocator or (SETTINGS if device == "cpu" else SETTINGS[:1])
    found = []
    for setting in settings:
        file = _file(out, setting, settings)
        result = run.bench(
            cases,
            device=device,
            peers=names or None,
            budget=budget,
            allocator=setting,
            threads=threads,
            out=file,
            tell=_tell,
        )
        if result is not None:
            found.append(result)
            _say_results(result, file)
    return _end(found, picture)


def _file(out: str | None, setting: str, settings: Sequence[str]) -> Path | None:
    """A file for each setting of the allocator; in a folder their names differ anyway."""
    if out is None:
        return None
    path = Path(out)
    several = len(settings) > 1 and path.suffix == ".json"
    return path.with_name(f"{path.stem}-{setting}.json") if several else path


def _say_results(result: Result, file: Path | None) -> None:
    if file is not None:
        print(f"results: {target(file, result['about'])}")


def _tell(line: Any) -> None:
    console = Console(soft_wrap=True)
    if "name" in line:
        styled = [(words, "bold red" if bad else "") for words, bad in parts(line)]
        console.print(Text.assemble(*styled))
    else:
        console.print(Text("\n".join(opening(line)), style="bold"))


def _end(found: Sequence[Result], picture: str | None) -> bool:
    for result in found:
        print(
            f"allocator {result['about']['allocator']}:", *behind_lines(result["cases"]), sep="\n"
        )
    if picture is not None and found:
        write_whole(picture, draw(found))
        print(f"picture: {picture}")
    failures = sum(len(result["failed"]) for result in found)
    if failures:
        print(f"{failures} contestants failed, see above.", file=sys.stderr)
    return bool(found) and not failures


if __name__ == "__main__":
    script(main)
