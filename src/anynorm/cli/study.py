"""``anynorm study``: train a model with each normalizer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anynorm.cli.status import DONE, INTERRUPTED, NOT_ALL
from anynorm.cli.written import say_written
from anynorm.report.files import check_target, write_json
from anynorm.study.cell import OPTIMIZERS, PLACEMENTS
from anynorm.study.data import BUILT_IN
from anynorm.study.subjects import SUBJECTS, USER

if TYPE_CHECKING:
    from anynorm.study.api import Study

__all__ = ["add"]


def add(commands: Any, command: str) -> None:
    """Add the command to the parser's; `command` is the whole line, for the report."""
    study = commands.add_parser(
        "study",
        help="train a model with each normalizer and say which suits it, and why",
        description="Every run is kept in the store; if the study is interrupted, run the same "
        "command again to resume. Defaults are in parentheses. Exit status 1: some runs failed; 2: "
        "bad input, or all runs failed; 130: interrupted.",
        epilog="Example: anynorm study --model my_models:net --data my_data:sets "
        "--norms none batch group:groups=8",
    )
    study.set_defaults(call=_study, command=command, resumes=True)
    _add_subject(study)
    _add_grid(study)
    _add_decision(study)
    _add_files(study)


def _study(
    *, store: str, report: str | None, parquet: str | None, json: str | None, **options: Any
) -> int:
    from anynorm.study.api import study
    from anynorm.study.extras import require

    if parquet:
        check_target(parquet, "Parquet file")
        require("pyarrow", "a Parquet file")
    if json:
        check_target(json, "JSON file")
    report = report or str(Path("" if "://" in store else store) / "report.html")
    result = study(store=store, report=report, **options)
    if parquet:
        result.to_parquet(parquet)
    if json:
        write_json(json, result.evidence)
    result.table()
    say_written({"report": report, "records": store, "Parquet": parquet, "JSON": json})
    return _say_what_is_missing(result)


def _say_what_is_missing(result: Study) -> int:
    for row in result.evidence["failures"]:
        first, *others = row["runs"]
        also = f" and {len(others)} more" if others else ""
        print(f"anynorm: {first}{also} failed:\n{row['reason']}", file=sys.stderr)
    finished = f"{len(result.records)} of {result.planned} runs"
    if result.interrupted:
        print(
            f"anynorm: interrupted with {finished} finished; run the same command again to resume.",
            file=sys.stderr,
        )
        return INTERRUPTED
    if result.failures:
        print(f"anynorm: {finished} finished; the others failed, see above.", file=sys.stderr)
    return NOT_ALL if result.failures else DONE


def _add_subject(study: argparse.ArgumentParser) -> None:
    add, own = study.add_argument, _own
    names = ", ".join(SUBJECTS)
    add("--model", default="mlp-relu", help=f"{names}, or package.module:factory (mlp-relu)")
    data = f"{', '.join(BUILT_IN)}, torchvision:NAME, or package.module:function, which returns a "
    add("--data", help=f"{data}training and a held-out set {own('data')}")
    norms = f"normalizers to compare; `anynorm catalogue` lists all {own('norms')}"
    add("--norms", nargs="+", metavar="NORM", help=norms)
    add("--optimizer", help=f"{', '.join(OPTIMIZERS)} {own('optimizer')}")
    decay = f"weight decay, not of biases, γ and β {own('weight_decay')}"
    add("--weight-decay", type=float, metavar="X", help=decay)
    warmup = f"steps in which the learning rate rises from 0 {own('warmup')}"
    add("--warmup", type=int, metavar="N", help=warmup)
    add("--lr", type=float, help=f"the base learning rate {own('lr')}")
    add("--batch", type=int, help=f"the base batch size {own('batch')}")
    add("--steps", type=int, metavar="N", help=f"training steps of the base runs {own('steps')}")
    add(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="runs of each setting, with different seeds (3)",
    )
    add("--first-seed", type=int, default=0, metavar="N", help="the first of these seeds (0)")


def _own(name: str) -> str:
    """The default of an option, as help shows it."""
    value = getattr(USER, name)
    values = value if isinstance(value, tuple) else (value,)
    shown = " ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in values)
    return f"({shown or 'none'}, or the built-in model's own)"


def _add_grid(study: argparse.ArgumentParser) -> None:
    add, switch, own = study.add_argument, argparse.BooleanOptionalAction, _own
    add("--lrs", nargs="*", type=float, metavar="LR", help=f"learning rates {own('lrs')}")
    inits = f"factors of the initial weights {own('inits')}"
    add("--inits", nargs="*", type=float, metavar="X", help=inits)
    add("--batches", nargs="*", type=int, metavar="N", help=f"batch sizes {own('batches')}")
    where = f"{', '.join(PLACEMENTS)} {own('placements')}"
    add("--placements", nargs="+", metavar="WHERE", help=where)
    add("--full", action="store_true", help="every combination, not one factor at a time (no)")
    noise = "the noisy control of batch norm (yes, or the built-in model's own)"
    add("--noise", action=switch, default=None, help=noise)
    runs = "additional runs, each for one question, such as the noisy control (yes)"
    add("--experiments", action=switch, default=True, help=runs)
    add("--probes", action=switch, default=True, help="measure the base runs in depth (yes)")
    add(
        "--refine",
        type=int,
        default=1,
        metavar="N",
        help="rounds that bisect the usable learning rates (1)",
    )


def _add_decision(study: argparse.ArgumentParser) -> None:
    add = study.add_argument
    margin = "difference that does not matter, in points or per cent of a loss (0.5 or 2)"
    add("--margin", type=float, metavar="X", help=margin)
    decided = "add seeds, up to 32, where comparisons cannot tell yet (no)"
    add("--until-decided", action="store_true", help=decided)
    add(
        "--minutes",
        type=float,
        metavar="M",
        help="the same, for at most this many minutes (no limit)",
    )


def _add_files(study: argparse.ArgumentParser) -> None:
    add = study.add_argument
    add("--store", default="anynorm-study", help="folder or URL of the records (anynorm-study)")
    report = "the HTML report (report.html in the store; here if the store is a URL)"
    add("--report", metavar="FILE.html", help=report)
    add("--json", metavar="FILE.json", help="also write the verdict and its evidence (no)")
    add("--parquet", metavar="FILE.parquet", help="also write the records as one table (no)")
    where = "local, ray, ray://host:port, ray:ADDRESS, slurm:option=value (local)"
    add("--on", default="local", help=where)
    limit = "minutes after which a run is stopped (20 times the longest, at least 1; inf: never)"
    add("--run-minutes", type=float, metavar="M", help=limit)
    add(
        "--workers",
        type=int,
        metavar="N",
        help="processes, tasks or jobs at a time (locally the number of CPUs)",
    )
    add(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the progress on standard error (yes)",
    )
