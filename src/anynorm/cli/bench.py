"""``anynorm bench``: how fast the layers are, beside others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anynorm.cli.status import DONE, NOT_ALL
from anynorm.cli.written import say_written
from anynorm.errors import AnynormError
from anynorm.report.files import check_target, write_whole

if TYPE_CHECKING:
    from anynorm.bench import Case
    from anynorm.bench.results import Result

__all__ = ["add"]

_FIELDS = ("normalizer", "layout", "dtype", "fusion", "phase")


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    bench = commands.add_parser(
        "bench",
        help="time the layers beside torch and others, on this processor or a GPU",
        description="Ratios are the others' time over ours. Exit status 1 says that something "
        "failed, 2 that something was wrong with what was given.",
    )
    bench.set_defaults(call=_bench)
    _add_cases(bench)
    _add_run(bench)
    _add_files(bench)


def _add_cases(bench: argparse.ArgumentParser) -> None:
    add = bench.add_argument
    grid = "full, small, rows, images, launch, goals (full on a processor, goals on a GPU)"
    add("--grid", help=grid)
    for name in _FIELDS:
        add(f"--{name}", nargs="+", metavar=name.upper(), help="only cases with these (all)")
    add("--only", default="", metavar="REGEX", help="only cases in whose names this is found (all)")
    add("--list", action="store_true", help="print the names of the cases, and end (no)")


def _add_run(bench: argparse.ArgumentParser) -> None:
    add = bench.add_argument
    seconds = "seconds to time a case (0.4; 0.25 on a GPU; 0.1 for the grid small)"
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto (auto: a GPU if there is one)")
    add("--peers", nargs="+", metavar="PEER", help="the others (all that are installed)")
    add("--allocator", nargs="+", choices=("default", "kept"), help="on a processor (both)")
    add("--threads", type=int, help="threads of torch (its own default)")
    add(
        "--seconds",
        type=float,
        help=seconds,
    )


def _add_files(bench: argparse.ArgumentParser) -> None:
    add = bench.add_argument
    out = "write the results; in a folder the file is named by the machine (no)"
    goals = "compare results with the goals, and end (no)"
    add("--out", metavar="FILE.json", help=out)
    add("--picture", metavar="FILE.svg", help="draw the ratios to torch.nn (no)")
    add("--goals", nargs="+", metavar="FILE.json", help=goals)


def _bench(*, goals: list[str] | None, list: bool, **options: Any) -> int:  # noqa: A002
    if goals is not None:
        return _show_goals(goals)
    from anynorm.bench import devices

    device = devices.resolve(options.pop("device"))
    grid = options.pop("grid") or ("full" if device == "cpu" else "goals")
    wanted = {name: options.pop(name) for name in (*_FIELDS, "only")}
    cases = _cases(grid, wanted)
    if list:
        print(*(case.name for case in cases), sep="\n")
        return DONE
    return _measure(cases, grid, device, **options)


def _cases(name: str, wanted: dict[str, Any]) -> Sequence[Case]:
    from anynorm.bench import grid, select

    found = select(grid(name), **wanted)
    if not found:
        raise AnynormError(f"no case of the grid {name} is like that; --list prints all that are.")
    return found


def _show_goals(files: Sequence[str]) -> int:
    from anynorm.bench.goals import goal_lines
    from anynorm.bench.results import read

    print(*goal_lines([read(Path(file)) for file in files]), sep="\n")
    return DONE


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
) -> int:
    from anynorm.bench.run import BUDGETS, bench

    for path, kind in ((out, "result"), (picture, "picture")):
        if path is not None and path.endswith((".json", ".svg")):
            check_target(path, kind)
    budget = BUDGETS["small" if grid == "small" else device.partition(":")[0]]
    if seconds is not None:
        budget = replace(budget, seconds=seconds)
    names = [name for words in peers or () for name in words.split(",")]
    settings = allocator or (["default", "kept"] if device == "cpu" else ["default"])
    found = []
    for setting in settings:
        file = _file(out, setting, settings)
        result = bench(
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
    from anynorm.bench.results import target

    if file is not None:
        say_written({"results": str(target(file, result["about"]))})


def _tell(line: Any) -> None:
    from rich.console import Console
    from rich.text import Text

    from anynorm.bench.show import opening, parts

    console = Console(soft_wrap=True)
    if "name" in line:
        styled = [(words, "bold red" if bad else "") for words, bad in parts(line)]
        console.print(Text.assemble(*styled))
    else:
        console.print(Text("\n".join(opening(line)), style="bold"))


def _end(found: Sequence[Result], picture: str | None) -> int:
    from anynorm.bench.dots import draw
    from anynorm.bench.show import behind_lines

    for result in found:
        print(
            f"allocator {result['about']['allocator']}:", *behind_lines(result["cases"]), sep="\n"
        )
    if picture is not None and found:
        write_whole(picture, draw(found))
        say_written({"picture": picture})
    failures = sum(len(result["failed"]) for result in found)
    if failures:
        print(f"anynorm: {failures} contestants failed, see above.", file=sys.stderr)
    return NOT_ALL if failures or not found else DONE
