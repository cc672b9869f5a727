"""The store at a URL: the same files, written through fsspec."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from anynorm.errors import AnynormError
from anynorm.report import files
from anynorm.study.extras import require
from anynorm.study.store import Records, Store

__all__ = ["RemoteStore", "open_store"]

# Two letters or more, since one letter is a drive on Windows.
_HALF_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# On these protocols a file appears only when its upload is complete.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "r2", "memory"})


def open_store(location: str | os.PathLike[str]) -> Records:
    """Open the store in a folder, or at a URL such as ``s3://bucket/study``.

    Raises `AnynormError` if it cannot be written, or if the URL needs a package that is not
    installed.
    """
    text = os.fspath(location)
    if not isinstance(text, str) or not text:
        raise AnynormError(f"the store is {text!r}; it must be the name of a folder, or a URL.")
    protocol, mark, rest = text.partition("://")
    protocol = protocol.lower()
    if not mark:
        return Store(_folder(text))
    if "::" in protocol:
        raise AnynormError(f"the store {text!r} is a chain of URLs; give one URL, or a folder.")
    if protocol == "memory":
        raise AnynormError(
            f"the store {text!r} would be lost when this process ends; give a folder."
        )
    if protocol not in ("file", "local"):
        return RemoteStore(f"{protocol}://{rest}")
    if not os.path.isabs(rest):
        raise AnynormError(
            f"the store {text!r} names no folder; write {protocol}:///folder with the full path, "
            "or only the name of the folder."
        )
    return Store(rest)


def _folder(text: str) -> str:
    if _HALF_A_URL.match(text):
        raise AnynormError(
            f"the store {text!r} is not a URL: a URL has two slashes after the colon, as in "
            "s3://bucket/study. If it is a folder, write ./ before it."
        )
    return os.path.expanduser(text)


class RemoteStore(Records):
    """Records on any file system that fsspec knows.

    On object stores (S3, Google, Azure) a record appears in one step. On others (SFTP, SMB, HDFS)
    it is written under another name and renamed, which is atomic if the server's rename is. An
    incomplete record is moved aside when it is read, and its cell runs again.
    """

    def __init__(self, url: str) -> None:
        require("fsspec", "a store at a URL")
        self.url = url
        self.files, self.root = _file_system(url)
        with self._reached("written"):
            self.files.makedirs(self.root, exist_ok=True)
            probe = _beside("writable")
            self._save(probe, "")
            self.files.rm_file(self._path(probe))

    @contextmanager
    def _reached(self, done: str) -> Iterator[None]:
        """Convert all errors of a file system to `AnynormError`, except those of missing files."""
        try:
            yield
        except (FileNotFoundError, AnynormError):
            raise
        except Exception as error:
            raise AnynormError(
                f"the store {self.url!r} cannot be {done}: {type(error).__name__}: {error}. "
                "Check the address and your access, or choose another with store= (--store)."
            ) from error

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _load(self, name: str) -> str:
        with self._reached("read"):
            found = bytes(self.files.cat_file(self._path(name), end=files.MOST + 1))
        return files.decoded(found, name, files.MOST)

    def _save(self, name: str, text: str) -> None:
        whole = self._appears_whole
        first = name if whole else _beside(name)
        with self._reached("written"):
            self.files.pipe_file(self._path(first), text.encode())
        if not whole:
            self._rename(first, name)

    def _rename(self, name: str, new: str) -> None:
        with self._reached("written"):
            self.files.mv(self._path(name), self._path(new))

    def _names(self) -> set[str]:
        with self._reached("read"):
            self.files.invalidate_cache(self.root)
            found = self.files.ls(self.root, detail=False)
        return {str(path).rstrip("/").rpartition("/")[2] for path in found}

    @property
    def _appears_whole(self) -> bool:
        protocol = self.files.protocol
        return not _WHOLE.isdisjoint([protocol] if isinstance(protocol, str) else protocol)


def _beside(name: str) -> str:
    """A unique name for a temporary file."""
    return f".{name}.{uuid4().hex}.tmp"


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url)
    # File systems from other packages may raise any error.
    except Exception as error:
        raise AnynormError(
            f"the store {url!r} cannot be opened: {error}. A store is a folder, or a URL whose "
            "protocol fsspec knows and whose package is installed (s3fs for s3://, gcsfs for gs://)."
        ) from error
    return files, str(root)
