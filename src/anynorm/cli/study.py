"""``anynorm study``: train a model with each normalizer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anynorm.cli.status import DONE, INTERRUPTED, NOT_ALL
from anynorm.report.files import check_target
from anynorm.study.cell import OPTIMIZERS, PLACEMENTS
from anynorm.study.data import BUILT_IN
from anynorm.study.subjects import SUBJECTS

if TYPE_CHECKING:
    from anynorm.study.api import Study

__all__ = ["add"]


def add(commands: Any, command: str) -> None:
    """Add the command to the parser's; `command` is the whole line, for the report."""
    study = commands.add_parser(
        "study",
        help="train a model with each normalizer and say which suits it, and why",
        description="Values that are not given are the model's own settings. Every run is kept "
        "in the store; the same command resumes where it was stopped.",
    )
    study.set_defaults(call=_study, command=command, resumes=True)
    _add_subject(study)
    _add_grid(study)
    _add_files(study)


def _study(*, store: str, report: str | None, parquet: str | None, **options: Any) -> int:
    from anynorm.study.api import study
    from anynorm.study.extras import require

    if parquet:
        check_target(parquet, "Parquet file")
        require("pyarrow", "a Parquet file")
    report = report or str(Path("" if "://" in store else store) / "report.html")
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
        return INTERRUPTED
    if result.failures:
        print(f"anynorm: {finished} finished; the others failed, see above.", file=sys.stderr)
    return NOT_ALL if result.failures else DONE


def _add_subject(study: argparse.ArgumentParser) -> None:
    add = study.add_argument
    names = ", ".join(SUBJECTS)
    add("--model", default="mlp-relu", help=f"{names}, or package.module:factory")
    add("--data", help=f"{', '.join(BUILT_IN)}, torchvision:NAME or package.module:function")
    add("--norms", nargs="+", metavar="NORM", help="such as: none batch group:groups=8 rms:qk=true")
    add("--optimizer", help=", ".join(OPTIMIZERS))
    add("--weight-decay", type=float, metavar="X", help="of weights, not of biases, γ and β")
    add("--warmup", type=int, metavar="N", help="steps in which the learning rate rises from 0")
    add("--lr", type=float, help="the base learning rate")
    add("--batch", type=int, help="the base batch size")
    add("--steps", type=int, help="training steps of the base runs")
    add("--seeds", type=int, default=3, help="runs of each cell (3)")


def _add_grid(study: argparse.ArgumentParser) -> None:
    add, switch = study.add_argument, argparse.BooleanOptionalAction
    add("--lrs", nargs="*", type=float, metavar="LR", help="learning rates to compare")
    add("--inits", nargs="*", type=float, metavar="X", help="factors of the initial weights")
    add("--batches", nargs="*", type=int, metavar="N", help="batch sizes to compare")
    add("--placements", nargs="+", metavar="WHERE", help=", ".join(PLACEMENTS))
    add("--full", action="store_true", help="every combination, not one factor at a time")
    add("--noise", action=switch, default=None, help="the noisy control of batch norm")
    add("--probes", action=switch, default=True, help="measure the base runs in depth")
    add("--refine", type=int, default=1, help="rounds that bisect the usable learning rates (1)")


def _add_files(study: argparse.ArgumentParser) -> None:
    add = study.add_argument
    add("--store", default="anynorm-study", help="folder or URL of the records (anynorm-study)")
    add("--report", help="the HTML report (report.html in the store, of a URL in this folder)")
    add("--parquet", help="write the records as a Parquet file, too")
    add(
        "--on", default="local", help="local, ray, ray://host:port, ray:ADDRESS, slurm:option=value"
    )
    add("--workers", type=int, help="processes, tasks or jobs at a time (as many as CPUs, or more)")
    add(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=sys.stderr.isatty(),
        help="show the progress bar",
    )
