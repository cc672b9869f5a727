"""The store: a folder with one JSON file for each finished cell."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import NoneType
from typing import Any

from anynorm.errors import AnynormError
from anynorm.report.files import TooLargeError, finite, read_bounded, write_whole
from anynorm.study.cell import SCHEMA, Cell

__all__ = ["Record", "Records", "Store"]

Record = dict[str, Any]

_NAME = re.compile(r"[0-9a-f]{24}\.json")
_PARTS: dict[str, Any] = {
    **dict.fromkeys(("key", "task", "status"), str),
    **dict.fromkeys(("cell", "curve", "evaluations", "final", "cost", "environment"), dict),
    "schema": int,
    "diverged_at": (int, NoneType),
    "probes": (dict, NoneType),
}
# Writing a record takes milliseconds: a temporary file this old was left by a killed process.
_STALE_SECONDS = 60.0


class Records(ABC):
    """Records by their keys; subclasses store them in files or at a URL.

    A record that cannot be read is moved aside to ``<key>.json.corrupt-N`` with a warning, and its
    cell counts as not run.
    """

    def write(self, record: Record) -> None:
        """Write a record in one step; numbers that are not finite become null."""
        self._save(f"{record['key']}.json", json.dumps(finite(record), allow_nan=False))

    def read(self, key: str) -> Record | None:
        """The record with this key, or None if there is no readable one."""
        name = f"{key}.json"
        try:
            text = self._load(name)
        except FileNotFoundError:
            return None
        except (UnicodeDecodeError, TooLargeError, IsADirectoryError, PermissionError) as error:
            self._move_aside(name, error)
            return None
        try:
            return _checked(json.loads(text), key)
        # A file that is nested too deeply is not a record either.
        except (ValueError, TypeError, RecursionError) as error:
            self._move_aside(name, error)
            return None

    def records(self) -> list[Record]:
        """Every readable record, in the order of their keys."""
        return list(self._records())

    def present(self) -> set[str]:
        """The keys that have a file, from one listing; a file may be unreadable."""
        return {name[:-5] for name in self._names() if _NAME.fullmatch(name)}

    def _records(self) -> Iterator[Record]:
        for key in sorted(self.present()):
            if (record := self.read(key)) is not None:
                yield record

    def _move_aside(self, name: str, error: Exception) -> None:
        taken = self._names()
        number = next(n for n in count(1) if f"{name}.corrupt-{n}" not in taken)
        aside = f"{name}.corrupt-{number}"
        try:
            self._rename(name, aside)
        except FileNotFoundError:  # another process has moved it and warned
            return
        warnings.warn(
            f"the record {name} cannot be read ({error}); it was moved to {aside} "
            "and its cell counts as not run.",
            stacklevel=4,
        )

    @abstractmethod
    def _load(self, name: str) -> str:
        """The text of a file; raises `FileNotFoundError`."""

    @abstractmethod
    def _save(self, name: str, text: str) -> None: ...

    @abstractmethod
    def _rename(self, name: str, new: str) -> None:
        """Rename a file; raises `FileNotFoundError`."""

    @abstractmethod
    def _names(self) -> set[str]:
        """The names of all files."""


class Store(Records):
    """Records on disk, each written atomically as ``<key>.json``.

    To merge two stores, copy their files into one folder. Raises `AnynormError` if the folder
    cannot be created or written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._check_writable()
        self._remove_leftovers()

    def path(self, key: str) -> Path:
        """The file of the record with this key."""
        return self.folder / f"{key}.json"

    def _load(self, name: str) -> str:
        return read_bounded(self.folder / name)

    def _save(self, name: str, text: str) -> None:
        write_whole(self.folder / name, text)

    def _rename(self, name: str, new: str) -> None:
        os.replace(self.folder / name, self.folder / new)

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self.folder))
        except OSError as error:
            raise self._error("read", error) from error

    def _error(self, done: str, error: OSError | ValueError) -> AnynormError:
        why = getattr(error, "strerror", None) or error
        return AnynormError(
            f"the store {str(self.folder)!r} cannot be {done}: {why}. "
            "Choose another folder with store= (--store)."
        )

    def _check_writable(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / ".writable", "")
            (self.folder / ".writable").unlink(missing_ok=True)
        except (OSError, ValueError) as error:  # a null byte in the name is a ValueError
            raise self._error("written", error) from error

    def _remove_leftovers(self) -> None:
        for path in self.folder.glob(".*.tmp"):
            # Another process may be removing the same file.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _checked(record: Record, key: str) -> Record:
    """Return the record if it is complete and fits its file name; raise ValueError otherwise."""
    if not isinstance(record, dict):
        raise ValueError("it is not a record")
    for name, kinds in _PARTS.items():
        if not isinstance(record.get(name, ...), kinds):
            raise ValueError(f"its {name!r} is missing or has a wrong type")
    if record["schema"] != SCHEMA or record["key"] != key:
        raise ValueError("its schema is unknown, or its key does not fit the file name")
    if Cell.from_dict(record["cell"]).key != key:
        raise ValueError("its cell does not have this key")
    return record
