"""The ``anynorm`` command: every subcommand is one call of the library."""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from anynorm.cli import bench, doctor, listings, prune, study, verbs
from anynorm.cli.status import BAD_INPUT, INTERRUPTED
from anynorm.errors import AnynormError
from anynorm.report.text import visible

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status.

    0: done, and healthy; 1: some runs failed, an edit was rolled back, or the doctor found
    something; 2: bad input, or something broke; 130: interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = vars(_parser(shlex.join(["anynorm", *words])).parse_args(words))
    call, resumes = options.pop("call"), options.pop("resumes", False)
    warnings.showwarning = _show_warning
    try:
        status: int = call(**options)
    except AnynormError as error:
        _say(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        _say(f"interrupted{'; the same command resumes' if resumes else ''}.")
        return INTERRUPTED
    except Exception:  # Python's own status for these is 1, which says something else here
        _say(traceback.format_exc())
        return BAD_INPUT
    return status


def _say(message: object) -> None:
    """Print to the standard error; names in messages come from files and users."""
    print("anynorm:", "\n".join(map(visible, str(message).split("\n"))), file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(message)


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anynorm", description="Choose, use and understand normalization in PyTorch."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    study.add(commands, command)
    doctor.add(commands)
    verbs.add(commands)
    prune.add(commands)
    bench.add(commands)
    listings.add(commands)
    return parser
