"""What a worker does with a cell, on any engine."""

from __future__ import annotations

import traceback
from typing import Any

from anynorm.errors import AnynormError
from anynorm.lookup import ended_by
from anynorm.study.cell import Cell
from anynorm.study.engines.versions import Versions, differences
from anynorm.study.store import Record, Records

__all__ = ["Answer", "answer", "attempt", "attempt_and_write", "write"]

# "record" and the record, "failed" and why, or "refused" because the worker has other versions.
Answer = tuple[str, Any]


def attempt(cell: Cell) -> Record | str:
    """Run one cell; returns why it failed, with a traceback unless it is bad input alone."""
    try:
        from anynorm.study.train import run

        return run(cell)
    except SystemExit as error:
        return ended_by(error)
    except Exception as error:
        return _reason(error)


def attempt_and_write(cell: Cell, store: Records) -> str | None:
    """Run one cell and write its record; returns why there is none."""
    found = attempt(cell)
    return found if isinstance(found, str) else write(found, store)


def write(record: Record, store: Records) -> str | None:
    """Write a record; returns why it could not be written."""
    try:
        store.write(record)
    except Exception as error:
        return _reason(error)
    return None


def answer(cell: dict[str, Any], driver: Versions) -> Answer:
    """Run one cell for a driver elsewhere, but only with the driver's own versions."""
    if found := differences(driver):
        return "refused", found
    result = attempt(Cell.from_dict(cell))
    return ("failed", result) if isinstance(result, str) else ("record", result)


def _reason(error: Exception) -> str:
    if isinstance(error, AnynormError) and error.__cause__ is None:
        return str(error)
    return "".join(traceback.format_exception(error))
