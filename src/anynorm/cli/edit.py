"""What the commands that change a model have in common: options, files, receipt, exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from anynorm.cli.status import DONE, NOT_ALL
from anynorm.cli.subject import NAMES, Subject, add_options, opened
from anynorm.cli.written import say_written
from anynorm.report.files import check_target

if TYPE_CHECKING:
    from anynorm.surgery import Result

__all__ = ["OURS", "SWITCH", "add_edit", "add_files", "check_files", "finish"]

# Options that are not given stay away from the call: the defaults are those of the library.
OURS: Any = argparse.SUPPRESS
SWITCH = argparse.BooleanOptionalAction
_CHANGED = "\nThey fit a model that was changed in the same way, not what the factory makes."


def add_edit(
    commands: Any,
    name: str,
    edit: Callable[..., Result],
    words: str,
    *,
    data: bool,
    example: str = "",
) -> argparse.ArgumentParser:
    """Add a command that calls `edit` with a `Subject` and the options of its own.

    `example` is what its help shows of these, with a space at the end.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=words,
        description=f"{words[0].upper()}{words[1:]}. Prints the receipt; exit status 1 says that "
        "the change was rolled back, 2 that something was wrong with what was given. Defaults are "
        "in parentheses.",
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
        # Weights are changed as they are used, whatever mode the factory leaves the model in.
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
    from anynorm.surgery.weights import save_state, shapes

    print(result.receipt)
    if receipt is not None:
        result.receipt.write(receipt)
    say_written({"receipt": receipt})
    if result.receipt.rolled_back:
        print("anynorm: rolled back, so no weights were written.", file=sys.stderr)
        return NOT_ALL
    if out is not None:
        save_state(result.model, out)
        print(f"weights: {out}{'' if shapes(result.model) == subject.shapes else _CHANGED}")
    return DONE
