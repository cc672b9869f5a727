"""How a worker of any engine runs a cell."""

from __future__ import annotations

import os
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

from anynorm.errors import AnynormError
from anynorm.lookup import ended_by
from anynorm.study.cell import Cell
from anynorm.study.engines.limits import RUN_SECONDS
from anynorm.study.engines.versions import Versions, differences
from anynorm.study.store import Record, Records

__all__ = ["Answer", "answer", "attempt", "attempt_within", "prepare", "write", "written"]

# A process with a run that exceeded its limit ends this long after its answer.
_SECONDS_TO_ANSWER = 2.0

# "record" and the record, "failed" and why, or "refused" because the worker has other versions.
Answer = tuple[str, Any]


def prepare(cell: Cell) -> None:
    """Import modules and load the data, so that their time does not count for the first run."""
    # Errors here are ignored, because the run itself raises and reports them.
    with suppress(Exception, SystemExit, KeyboardInterrupt):
        from anynorm.study.data import load

        load(cell.data)


def attempt(cell: Cell) -> Record | str:
    """Run one cell; return the record, or why it failed (with a traceback if unexpected)."""
    start = time.monotonic()
    try:
        from anynorm.study.train import run

        record = run(cell)
    except SystemExit as error:
        return ended_by(error)
    except KeyboardInterrupt as error:  # from the user's code; the driver handles Ctrl-C
        return _reason(error)
    except Exception as error:
        return _reason(error)
    return {**record, "cost": {**record["cost"], RUN_SECONDS: time.monotonic() - start}}


def attempt_within(cell: Cell, seconds: float, late: str) -> Record | str:
    """Run one cell; return `late` if it has not finished after `seconds`.

    A thread cannot be stopped: a late run goes on until its process ends.
    """
    found: list[Record | str] = []
    thread = threading.Thread(target=lambda: found.append(attempt(cell)), daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    return found[0] if found else late


def written(found: Record | str, store: Records) -> str | None:
    """Write the result of an attempt if it is a record; return why there is none."""
    return found if isinstance(found, str) else write(found, store)


def write(record: Record, store: Records) -> str | None:
    """Write a record; return why it could not be written."""
    try:
        store.write(record)
    except Exception as error:
        return _reason(error)
    return None


def answer(cell: dict[str, Any], driver: Versions, seconds: float, late: str) -> Answer:
    """Run one cell for a driver on another machine, if versions are equal to the driver's.

    If it has not finished after `seconds`, the reason is `late`, and the process ends soon after.
    """
    if found := differences(driver):
        return "refused", found
    result = attempt_within(Cell.from_dict(cell), seconds, late)
    if result == late:
        threading.Timer(_SECONDS_TO_ANSWER, os._exit, [1]).start()
    return ("failed", result) if isinstance(result, str) else ("record", result)


def _reason(error: BaseException) -> str:
    if isinstance(error, AnynormError) and error.__cause__ is None:
        return str(error)
    return "".join(traceback.format_exception(error))
