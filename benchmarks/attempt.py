"""One trial of a verb on a model: passed, refused with our own error, or wrong."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable

import torch

from anynorm.errors import AnynormError

__all__ = ["WrongError", "attempted", "quiet"]


class WrongError(Exception):
    """What must not happen, such as outputs that differ."""


def attempted(run: Callable[[], str]) -> tuple[str, str]:
    """Return "passed" with what `run` says, "refused" with our error, or "wrong" with another."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return "passed", run()
    except AnynormError as error:
        return "refused", str(error)
    except Exception as error:  # whatever it is, it must not happen
        return "wrong", repr(error)


def quiet() -> None:
    """Use one thread, and silence warnings and notes of model code."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
