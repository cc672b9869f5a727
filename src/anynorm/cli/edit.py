"""The common part of commands that change a model: options, files, receipt, exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from anynorm.cli.status import DONE, NOT_ALL
from anynorm.cli.subject import NAMES, Subject, add_options, opened
from anynorm.cli.written import say_written
from anynorm.errors import AnynormError
from anynorm.report.files import check_target

if TYPE_CHECKING:
    from torch import nn

    from anynorm.surgery import Manifest, Result

__all__ = ["OURS", "SWITCH", "add_edit", "add_files", "check_files", "finish"]

# Options that are not given are not passed on, so that the library's defaults apply.
OURS: Any = argparse.SUPPRESS
SWITCH = argparse.BooleanOptionalAction
_CHANGED = (
    "\nThey load into a model that was changed in the same way, not into the factory's model."
)


def add_edit(
    commands: Any,
    name: str,
    edit: Callable[..., Result],
    words: str,
    *,
    data: bool,
    example: str = "",
) -> argparse.ArgumentParser:
    """Add a command that calls `edit` with a `Subject` and the command's own options.

    `example` has some of these options for the help text, with a space at the end.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=words,
        description=f"{words[0].upper()}{words[1:]}. Prints the receipt. Exit status 1: the change "
        "was undone, since outputs differ too much; 2: bad input. Defaults are in parentheses.",
        epilog=f"Example: anynorm {name} --model my_models:net --weights net.safetensors "
        f"--data my_data:batches {example}--out new.safetensors",
    )
    parser.set_defaults(call=partial(_run, edit))
    add_options(parser, data=data)
    add_files(parser)
    return parser


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the files that an edit writes."""
    add = parser.add_argument
    add("--out", metavar="FILE.safetensors", help="write the changed weights (no)")
    add("--receipt", metavar="FILE.json", help="write the receipt (no)")


def _run(
    edit: Callable[..., Result], *, out: str | None, receipt: str | None, **options: Any
) -> int:
    check_files(out, receipt)
    with opened(**{name: options.pop(name) for name in NAMES}) as subject:
        # Weights are changed for use, so the model is in eval mode.
        subject.model.eval()
        return finish(subject, edit(subject, **options), out, receipt)


def check_files(out: str | None, receipt: str | None) -> None:
    """Raise `AnynormError` if one of the files of an edit cannot be written."""
    from anynorm.surgery.weights import check_weights

    if out is not None:
        check_weights(out)
    if receipt is not None:
        check_target(receipt, "receipt")


def finish(subject: Subject, result: Result, out: str | None, receipt: str | None) -> int:
    """Print and write the receipt, and write the weights unless the edit was rolled back."""
    from anynorm.surgery.weights import save_state

    print(result.receipt)
    if receipt is not None:
        result.receipt.write(receipt)
    say_written({"receipt": receipt})
    if result.receipt.rolled_back:
        print("anynorm: the change was undone, so no weights were written.", file=sys.stderr)
        return NOT_ALL
    if out is not None:
        about = _manifest(result.model, subject)
        save_state(result.model, out, manifest=about)
        print(f"weights: {out}{'' if _fits(result.model, about, subject) else _CHANGED}")
    return DONE


def _manifest(model: nn.Module, subject: Subject) -> Manifest:
    """The manifest of a changed model; data that cannot be read again do not cost its weights."""
    from anynorm.surgery.weights import manifest

    try:
        return manifest(model, subject.example, forward=subject.forward)
    except AnynormError:
        return manifest(model)


def _fits(model: nn.Module, about: Manifest, subject: Subject) -> bool:
    """Whether weights of the changed model load into the model as it was made."""
    from anynorm.surgery.weights import shapes

    others = subject.manifest.differences(about)
    return shapes(model) == subject.shapes and all(one.effect != "outputs" for one in others)
