"""The commands that change a model: ``convert``, ``freeze``, ``recalibrate`` and ``fold``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from anynorm.cli.edit import OURS, SWITCH, add_edit
from anynorm.cli.subject import Subject
from anynorm.errors import AnynormError

if TYPE_CHECKING:
    from anynorm.surgery import Result

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the commands to the parser's."""
    _add_convert(commands)
    _add_freeze(commands)
    _add_recalibrate(commands)
    fold = add_edit(commands, "fold", _fold, "fold normalizers into their neighbours", data=True)
    _add_tolerance(fold, "1e-4")


def _add_convert(commands: Any) -> None:
    convert = add_edit(
        commands,
        "convert",
        _convert,
        "replace normalizers by others",
        data=False,
        example="--to group:groups=8 ",
    )
    add = convert.add_argument
    to = "torch, anynorm, dyt, or a normalizer such as group:groups=8"
    add("--to", required=True, metavar="NORM", help=to)
    source = "what to replace (batch; for torch, anynorm and dyt all)"
    add("--source", nargs="+", default=OURS, metavar="FAMILY", help=source)
    _add_layers(convert)
    add("--heal", action="store_true", help="fit the layers to the old outputs on --data (no)")
    distill = "then train so many steps towards the old outputs, without labels (0)"
    add("--distill", type=int, default=OURS, metavar="STEPS", help=distill)
    _add_tolerance(convert, "1e-4 to torch, anynorm and frozen; otherwise none")


def _add_freeze(commands: Any) -> None:
    freeze = add_edit(commands, "freeze", _freeze, "make running statistics constant", data=False)
    freeze.add_argument("--affine", action=SWITCH, default=OURS, help="also freeze γ and β (yes)")
    _add_layers(freeze)
    _add_tolerance(freeze, "1e-5")


def _add_recalibrate(commands: Any) -> None:
    words = "recompute running statistics from data"
    recalibrate = add_edit(commands, "recalibrate", _recalibrate, words, data=True)
    recalibrate.add_argument(
        "--passes",
        type=int,
        metavar="N",
        default=OURS,
        help="the most passes (until the statistics do not change)",
    )
    recalibrate.add_argument(
        "--memory",
        type=float,
        metavar="BYTES",
        default=OURS,
        help="what batches that wait for each other may keep; 0: none waits (half of what is free)",
    )
    recalibrate.add_argument(
        "--progress",
        action=SWITCH,
        default=True,
        help="show the progress on standard error (yes)",
    )
    _add_layers(recalibrate)


def _add_layers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layers",
        nargs="+",
        default=OURS,
        metavar="NAME",
        help="only these layers: names, parts of the model, or patterns with * (all)",
    )


def _add_tolerance(parser: argparse.ArgumentParser, default: str) -> None:
    words = "the largest relative difference of the outputs; above it nothing is changed"
    words = f"{words} ({default})"
    parser.add_argument("--tolerance", type=float, default=OURS, help=words)


def _convert(subject: Subject, *, to: str, heal: bool, **options: Any) -> Result:
    if heal:
        if subject.batches is None:
            raise AnynormError("--heal needs inputs to fit the layers to; give --data.")
        options["heal"] = subject.batches
    from anynorm.study.cell import parse_norm
    from anynorm.surgery.convert import convert

    name, own = parse_norm(to)
    own_options: dict[str, Any] = dict(own)
    return convert(
        subject.model,
        name,
        subject.example,
        forward=subject.forward,
        inplace=True,
        **options,
        **own_options,
    )


def _freeze(subject: Subject, **options: Any) -> Result:
    from anynorm.surgery.freeze import freeze

    model, example = subject.model, subject.example
    return freeze(model, example, forward=subject.forward, inplace=True, **options)


def _recalibrate(subject: Subject, **options: Any) -> Result:
    from anynorm.surgery.recalibrate import recalibrate

    model, batches = subject.model, subject.batches
    return recalibrate(model, batches, forward=subject.forward, inplace=True, **options)


def _fold(subject: Subject, **options: Any) -> Result:
    from anynorm.surgery.fold import fold

    model, example = subject.model, subject.example
    return fold(model, example, forward=subject.forward, inplace=True, **options)
