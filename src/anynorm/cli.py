"""The ``anynorm`` command: every subcommand is one call of the library."""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anynorm.catalogue import Entry, catalogue
from anynorm.errors import AnynormError
from anynorm.info import info
from anynorm.spec import SCALES, Spec
from anynorm.study.cell import OPTIMIZERS
from anynorm.study.subjects import SUBJECTS

if TYPE_CHECKING:
    from anynorm.study.api import Study

__all__ = ["main"]

_OK, _SOME_FAILED, _BAD_INPUT, _INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 (some runs failed), 2 (bad input), 130."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = vars(_parser(shlex.join(["anynorm", *words])).parse_args(words))
    call = options.pop("call")
    warnings.showwarning = _show_warning
    try:
        status: int = call(**options)
    except AnynormError as error:
        print(f"anynorm: {error}", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        print("anynorm: interrupted; the same command resumes.", file=sys.stderr)
        return _INTERRUPTED
    return status


def _study(*, store: str, report: str | None, parquet: str | None, **options: Any) -> int:
    from anynorm.study.api import check_target, study
    from anynorm.study.extras import require

    if parquet:
        check_target(parquet, "Parquet file")
        require("pyarrow", "a Parquet file")
    report = report or str(Path(store) / "report.html")
    result = study(store=store, report=report, **options)
    if parquet:
        result.to_parquet(parquet)
    result.table()
    print(f"report: {report}\nrecords: {store}")
    return _say_what_is_missing(result)


def _say_what_is_missing(result: Study) -> int:
    for row in result.evidence["failures"]:
        first, *others = row["runs"]
        also = f" and {len(others)} more" if others else ""
        print(f"anynorm: {first}{also} failed:\n{row['reason']}", file=sys.stderr)
    finished = f"{len(result.records)} of {result.planned} runs"
    if result.interrupted:
        print(
            f"anynorm: interrupted with {finished} finished; the same command resumes.",
            file=sys.stderr,
        )
        return _INTERRUPTED
    if result.failures:
        print(f"anynorm: {finished} finished; the others failed, see above.", file=sys.stderr)
    return _SOME_FAILED if result.failures else _OK


def _catalogue() -> int:
    table = Table(title="anynorm catalogue", show_lines=True)
    for heading in ("name", "pattern", "statistic", "state", "invariant to", "torch twin", "paper"):
        table.add_column(heading, no_wrap=heading in ("name", "pattern"))
    for entry in catalogue.values():
        table.add_row(*map(escape, _row(entry)))
    console = Console()
    console.width = max(console.width, 100 if console.is_terminal else 160)
    console.print(table)
    return _OK


def _row(entry: Entry) -> Sequence[str]:
    spec = entry.spec
    invariances = spec.invariances._asdict()
    return (
        entry.name,
        str(spec.pattern) + ("" if spec.on == "input" else f" on {spec.on}"),
        _statistic(spec),
        entry.state or "-",
        ", ".join(name.replace("_", " ") for name, holds in invariances.items() if holds) or "-",
        entry.twin or "-",
        entry.paper,
    )


def _statistic(spec: Spec) -> str:
    scales = [name for name, scale in SCALES.items() if scale == spec.scale]
    return " and ".join([*(["mean"] if spec.center else []), *scales[:1]]) or "none"


def _info() -> int:
    table = Table(title="anynorm info", show_header=False)
    table.add_column(no_wrap=True)
    for name, value in asdict(info()).items():
        table.add_row(name.replace("_", " "), escape(value))
    Console().print(table)
    return _OK


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"anynorm: {message}", file=sys.stderr)


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anynorm", description="Choose, use and understand normalization in PyTorch."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_study(commands, command)
    listing = commands.add_parser("catalogue", help="list every normalizer")
    listing.set_defaults(call=_catalogue)
    surroundings = commands.add_parser("info", help="show versions, machine, kernels and allocator")
    surroundings.set_defaults(call=_info)
    return parser


def _add_study(commands: Any, command: str) -> None:
    study = commands.add_parser(
        "study",
        help="train a model with each normalizer and say which suits it, and why",
        description="Values that are not given are the model's own settings. Every run is kept "
        "in the store; the same command resumes where it was stopped.",
    )
    study.set_defaults(call=_study, command=command)
    _add_subject(study)
    _add_grid(study)
    _add_files(study)


def _add_subject(study: argparse.ArgumentParser) -> None:
    add = study.add_argument
    names = ", ".join(SUBJECTS)
    add("--model", default="mlp-relu", help=f"{names}, or package.module:factory")
    add("--data", help="digits, gaussian, torchvision:NAME or package.module:function")
    add("--norms", nargs="+", metavar="NORM", help="such as: none batch group:groups=8")
    add("--optimizer", default="sgd", help=", ".join(OPTIMIZERS))
    add("--lr", type=float, help="the base learning rate")
    add("--batch", type=int, help="the base batch size")
    add("--steps", type=int, help="training steps of the base runs")
    add("--seeds", type=int, default=3, help="runs of each cell (3)")


def _add_grid(study: argparse.ArgumentParser) -> None:
    add, switch = study.add_argument, argparse.BooleanOptionalAction
    add("--lrs", nargs="*", type=float, metavar="LR", help="learning rates to compare")
    add("--inits", nargs="*", type=float, metavar="X", help="factors of the initial weights")
    add("--batches", nargs="*", type=int, metavar="N", help="batch sizes to compare")
    add("--placements", nargs="+", metavar="WHERE", help="before and after the activation")
    add("--full", action="store_true", help="every combination, not one factor at a time")
    add("--noise", action=switch, default=None, help="the noisy control of batch norm")
    add("--probes", action=switch, default=True, help="measure the base runs in depth")
    add("--refine", type=int, default=1, help="rounds that bisect the usable learning rates (1)")


def _add_files(study: argparse.ArgumentParser) -> None:
    add = study.add_argument
    add("--store", default="anynorm-study", help="folder of the records (anynorm-study)")
    add("--report", help="the HTML report (report.html in the store)")
    add("--parquet", help="write the records as a Parquet file, too")
    add("--workers", type=int, help="processes (as many as CPUs)")
    add(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=sys.stderr.isatty(),
        help="show the progress bar",
    )
