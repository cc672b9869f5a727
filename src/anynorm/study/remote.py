"""The store at a URL: the same files, written through fsspec."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

from anynorm.errors import AnynormError
from anynorm.study.extras import require
from anynorm.study.store import Records, Store

__all__ = ["RemoteStore", "open_store"]

# Here a file appears whole, or not at all, when its upload ends.
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "r2", "memory"})


def open_store(location: str | os.PathLike[str]) -> Records:
    """The store at a folder, or at a URL such as ``s3://bucket/study``.

    Raises `AnynormError` when it cannot be written, or when the URL needs a package that is not
    installed.
    """
    text = os.fspath(location)
    protocol, mark, rest = text.partition("://")
    if not mark:
        return Store(text)
    if protocol == "memory":
        raise AnynormError(f"the store {text!r} is lost with this process; give a folder.")
    return Store(rest) if protocol in ("file", "local") else RemoteStore(text)


class RemoteStore(Records):
    """Records behind any file system that fsspec knows.

    On object stores (S3, Google, Azure) a record appears whole in one step. Elsewhere (SFTP, SMB,
    HDFS) it is written under another name and renamed, which is as atomic as the server's rename:
    a record that was cut short all the same is moved aside when it is read, and run again.
    """

    def __init__(self, url: str) -> None:
        require("fsspec", "a store at a URL")
        self.url = url
        self.files, self.root = _file_system(url)
        try:
            self.files.makedirs(self.root, exist_ok=True)
            probe = _beside("writable")
            self._save(probe, "")
            self.files.rm_file(self._path(probe))
        except Exception as error:
            raise AnynormError(
                f"the store {url!r} cannot be written: {type(error).__name__}: {error}. "
                "Check the address and your access, or choose another with store= (--store)."
            ) from error

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _load(self, name: str) -> str:
        return bytes(self.files.cat_file(self._path(name))).decode()

    def _save(self, name: str, text: str) -> None:
        if self._appears_whole:
            self.files.pipe_file(self._path(name), text.encode())
            return
        beside = _beside(name)
        self.files.pipe_file(self._path(beside), text.encode())
        self._rename(beside, name)

    def _rename(self, name: str, new: str) -> None:
        self.files.mv(self._path(name), self._path(new))

    def _names(self) -> set[str]:
        self.files.invalidate_cache(self.root)
        found = self.files.ls(self.root, detail=False)
        return {str(path).rstrip("/").rpartition("/")[2] for path in found}

    @property
    def _appears_whole(self) -> bool:
        protocol = self.files.protocol
        return not _WHOLE.isdisjoint([protocol] if isinstance(protocol, str) else protocol)


def _beside(name: str) -> str:
    """A name for a file in the making that no process on any machine has, too."""
    return f".{name}.{uuid4().hex}.tmp"


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        files, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise AnynormError(
            f"the store {url!r}: {error}. A store is a folder, or a URL whose protocol fsspec "
            "knows and whose package is installed (s3fs for s3://, gcsfs for gs://)."
        ) from error
    return files, str(root)
