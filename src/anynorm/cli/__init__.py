"""The ``anynorm`` command: every subcommand is one call of the library."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

from anynorm import __version__
from anynorm.cli import audit, bench, doctor, listings, prune, study, verbs
from anynorm.cli.parser import Parser, check_words
from anynorm.cli.status import BAD_INPUT, CUT_OFF, INTERRUPTED
from anynorm.errors import AnynormError
from anynorm.lookup import ended_by
from anynorm.report.text import visible

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status.

    0: done, and healthy; 1: some runs failed, a change was undone, or the doctor or the audit has
    errors or warnings; 2: bad input or another error; 130: interrupted; 141: the output was closed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    warnings.showwarning = _show_warning
    try:
        options = vars(_parsed(words))
        _flush()  # before long work, not after it
        status = _call(**options)
        _flush()
        return status
    except BrokenPipeError:  # the reader of the output has ended, as after `| head`
        _drop_output()
        return CUT_OFF
    except AnynormError as error:
        _say(error)
    except SystemExit:  # from the parser, which has printed its message
        raise
    except BaseException as error:  # Python's own status 1 has another meaning here
        _say(_output_problem(error) or traceback.format_exc())
    return BAD_INPUT


def _flush() -> None:
    """Write the buffered output, and raise an error if it cannot be written."""
    if problem := _output_problem():
        raise AnynormError(problem)


def _output_problem(error: BaseException | None = None) -> str:
    """Return why standard output cannot be written, if that may be the reason of `error`; or ''."""
    if not isinstance(error, (OSError, ValueError, NoneType)):
        return ""
    if sys.stdout is None or sys.stdout.closed:
        return (
            "the standard output is closed, so the result cannot be printed. If your code closes "
            "it, such as a model's factory, remove that."
        )
    try:
        if error is not None:  # the output that could not be written may be lost
            sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        if error is None:
            raise
    except OSError as problem:
        _drop_output()
        return f"the standard output cannot be written: {problem}."
    return ""


def _drop_output() -> None:
    """Redirect the rest of the output to null, because Python's last flush would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser, commands = _parser(shlex.join(["anynorm", *words]))
    check_words(words, parser, commands)
    return parser.parse_args(words)


def _call(*, call: Callable[..., int], resumes: bool = False, **options: Any) -> int:
    try:
        return call(**options)
    except SystemExit as error:  # from the user's code: anynorm never calls sys.exit
        raise AnynormError(ended_by(error)) from error
    except KeyboardInterrupt:
        _say(f"interrupted{'; run the same command again to resume' if resumes else ''}.")
        return INTERRUPTED


def _say(message: object) -> None:
    """Print to the standard error; names in messages come from files and users."""
    print("anynorm:", "\n".join(map(visible, str(message).split("\n"))), file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(message)


def _parser(command: str) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the parser, and those of the commands by their names."""
    parser = Parser(
        prog="anynorm",
        description="Choose, use and understand normalization in PyTorch.",
        epilog="`anynorm COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"anynorm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    study.add(commands, command)
    doctor.add(commands)
    audit.add(commands)
    verbs.add(commands)
    prune.add(commands)
    bench.add(commands)
    listings.add(commands)
    return parser, commands.choices
