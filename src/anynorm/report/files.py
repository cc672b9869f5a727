"""Files that are complete or absent at any moment."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anynorm.errors import AnynormError

__all__ = ["check_target", "finite", "whole", "write_json", "write_whole"]


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` beside `path` and rename it: what breaks off leaves the file as it was.

    Folders that are missing are made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/new/page.txt", "all of it")
    ...     Path(f"{folder}/new/page.txt").read_text()
    'all of it'
    """
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write plain values as JSON, as :func:`write_whole` does; what is not finite is null."""
    write_whole(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return plain values with None for NaN and infinities, for which JSON has no numbers.

    >>> finite({"loss": [0.5, float("nan")]})
    {'loss': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside `path` to write to; what is there at the end of the block is renamed.

    If the block raises, `path` is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield beside
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def check_target(target: str | os.PathLike[str], kind: str) -> None:
    """Find out before long work, not after it, that a file has nowhere to go.

    Folders that are missing are made.  Raises `AnynormError`, which names the file by its `kind`.
    """
    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AnynormError(f"the {kind} {str(path)!r} cannot be written: {error}.") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise AnynormError(f"the {kind} {str(path)!r} cannot be written; name a file elsewhere.")
