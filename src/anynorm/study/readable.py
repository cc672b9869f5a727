"""Validate records: parts of a wrong form are left out and reported.

Records come from files, which other versions, other programs and broken disks may have written.
Code that uses validated records may find that parts are missing, but no part has a wrong form: a
number is finite or None, a column is a list, and steps increase.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell
from anynorm.study.spread import SCORES

__all__ = ["Fault", "Readable", "readable"]

Record = dict[str, Any]
# Reads a value; adds the parts that it leaves out, by their path, to the counter.
Reader = Callable[[Any, str, "Faults"], Any]
Faults = Counter["Fault"]

STATUSES = ("ok", "diverged")
# The largest number whose square is finite, so that sums and variances are.
LARGEST = 1e150


class Fault(NamedTuple):
    """A part of a record that cannot be used, and what is wrong with it."""

    part: str
    why: str


class Readable(NamedTuple):
    """Records whose parts are valid, and how many records had which fault."""

    records: Sequence[Record]
    faults: Faults


class _Unreadable(Exception):  # noqa: N818
    """A value of a wrong form; the message says what is wrong."""


class _Read(dict[str, Any]):
    """A record that has been validated, so that it is not validated again."""


def readable(records: Iterable[Mapping[str, Any]]) -> Readable:
    """Return the records with their valid parts.

    A record without a cell, a status, a task or, if it has not diverged, its score is left out.

    >>> found = readable([{"status": "ok"}])
    >>> found.records, [fault.part for fault in found.faults]
    ([], ['cell'])
    """
    faults: Faults = Counter()
    found = []
    for record in records:
        if isinstance(record, _Read):
            found.append(record)
            continue
        own: Faults = Counter()
        try:
            found.append(_read(record, own))
        except _Unreadable as error:
            part, why = error.args
            own = Counter({Fault(part, f"{why}; the run is left out"): 1})
        # A part counts once for each record, however many of its values are wrong.
        faults.update(own.keys())
    return Readable(found, faults)


def _read(record: Mapping[str, Any], faults: Faults) -> _Read:
    _require(isinstance(record, Mapping), "record", "it is not a mapping")
    read = _Read(_RECORD(record, "", faults))
    _check_cell(record.get("cell"))
    for part, names in (("status", STATUSES), ("task", tuple(SCORES))):
        known = isinstance(record.get(part), str) and record[part] in names
        _require(known, part, f"it is none of {', '.join(names)}")
    if read["status"] == "ok":
        score = SCORES[read["task"]].key
        _require(score in (read.get("final") or {}), f"final.{score}", "there is no such number")
    return read


def _check_cell(cell: Any) -> None:
    try:
        Cell.from_dict({**cell, "norm_options": cell.get("norm_options", ())})
    except (AnynormError, TypeError, ValueError, AttributeError) as error:
        raise _Unreadable("cell", f"it describes no run ({error})") from error


def _require(holds: bool, part: str, why: str) -> None:
    if not holds:
        raise _Unreadable(part, why)


def _number(value: Any, _: str, __: Faults) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Unreadable("it is not a number")
    return value if -LARGEST < value < LARGEST else None


def _count(value: Any, _: str, __: Faults) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise _Unreadable("it is not a count")
    return value


def _text(value: Any, _: str, __: Faults) -> str:
    if not isinstance(value, str):
        raise _Unreadable("it is not a text")
    return value


def _version(value: Any, _: str, __: Faults) -> str | int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _Unreadable("it is not a version")
    return value


def _list(item: Reader, name: str) -> Reader:
    def read(value: Any, path: str, faults: Faults) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise _Unreadable(f"it is not a list of {name}")
        return [item(one, path, faults) for one in value]

    return read


def _numbers(value: Any, path: str, faults: Faults) -> list[float | None]:
    if not isinstance(value, (list, tuple)):
        raise _Unreadable("it is not a list of numbers")
    # Most of a record is such lists, and a call for each number would be slow.
    return [
        one
        if (type(one) is float or type(one) is int) and -LARGEST < one < LARGEST
        else _number(one, path, faults)
        for one in value
    ]


def _known_numbers(value: Any, path: str, faults: Faults) -> list[float | None]:
    found = _numbers(value, path, faults)
    if None in found:
        raise _Unreadable("some of its numbers are not finite")
    return found


def _weights(value: Any, path: str, faults: Faults) -> list[int]:
    """The number of steps for which each row stands; it may be 0."""
    return [_count(one, path, faults) or 0 for one in _numbers(value, path, faults)]


def _items(value: Any, path: str, faults: Faults) -> Any:
    """The result of each held-out sample: a text of digits (1 for right), or a list of losses."""
    if isinstance(value, str) and not value.strip("01"):
        return value
    return _known_numbers(value, path, faults)


def _fields(known: Mapping[str, Reader], others: Reader | None = None) -> Reader:
    """Read a mapping; a field that cannot be read is left out."""

    def read(value: Any, path: str, faults: Faults) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _Unreadable("it is not a mapping")
        found = {}
        for name, one in value.items():
            reader = known.get(name, others)
            below = f"{path}.{name}" if path else str(name)
            try:
                found[name] = one if reader is None else reader(one, below, faults)
            except _Unreadable as error:
                faults[Fault(below, str(error))] += 1
        return found

    return read


def _optional(reader: Reader) -> Reader:
    """Read a part that is None if it was not measured."""

    def read(value: Any, path: str, faults: Faults) -> Any:
        return None if value is None else reader(value, path, faults)

    return read


def _table(known: Mapping[str, Reader], others: Reader) -> Reader:
    """Read columns over steps; rows whose step is None, or does not increase, are left out."""
    columns = _fields({"step": _numbers, "weight": _weights, **known}, others)

    def read(value: Any, path: str, faults: Faults) -> dict[str, Any]:
        found = columns(value, path, faults)
        steps = found.get("step")
        if steps is None:
            return {}
        kept = _rising(steps)
        if len(kept) < len(steps):
            faults[Fault(f"{path}.step", "some of its steps do not increase")] += 1
            names = [name for name, reader in known.items() if reader is _names]
            found |= _at(kept, {name: one for name, one in found.items() if name not in names})
        return dict(found)

    return read


def _at(kept: Sequence[int], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns, of which some may be mappings of columns, at the kept places."""
    return {
        name: _at(kept, column)
        if isinstance(column, Mapping)
        else [column[at] for at in kept if at < len(column)]
        for name, column in columns.items()
    }


def _rising(steps: Sequence[float | None]) -> list[int]:
    kept: list[int] = []
    last = -math.inf
    for at, step in enumerate(steps):
        if step is not None and step > last:
            kept.append(at)
            last = step
    return kept


_names = _list(_text, "names")
_rows = _list(_numbers, "lists of numbers")
_known_rows = _list(_known_numbers, "lists of numbers")
_choices = _fields({"smallest": _numbers, "random": _rows, "largest": _numbers}, _numbers)
_layered = {"layers": _names, "kinds": _names}

_PROBES: dict[str, Reader] = {
    "landscape": _table({}, _numbers),
    "shift": _table(_layered, _rows),
    "units": _table({**_layered, "percentiles": _fields({}, _numbers)}, _rows),
    "flow": _table({**_layered, "ratio": _rows}, _numbers),
    "affine": _fields(
        {"layers": _names, **dict.fromkeys(("gamma", "beta", "mean", "deviation"), _known_rows)}
    ),
    "importance": _fields(
        {
            "loss": _number,
            "across": _number,
            "layers": _names,
            **dict.fromkeys(("channels", "within"), _numbers),
            "shares": _known_numbers,
            **dict.fromkeys(("gamma", "rise"), _rows),
            **dict.fromkeys(("by_layer", "overall"), _choices),
        }
    ),
}

_RECORD = _fields(
    {
        "diverged_at": _count,
        "chance": _number,
        "curve": _optional(_table({}, _numbers)),
        "evaluations": _optional(_table({}, _numbers)),
        "final": _optional(_fields({}, _number)),
        "items": _optional(_fields({}, _items)),
        "probes": _optional(_fields({name: _optional(one) for name, one in _PROBES.items()})),
        "cost": _optional(_fields({}, _number)),
        "environment": _optional(_fields({}, _version)),
    }
)
