"""Write files so that they are always complete or absent, and read files with a size limit."""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anynorm.errors import AnynormError

__all__ = [
    "MOST",
    "TooLargeError",
    "check_target",
    "decoded",
    "finite",
    "read_bounded",
    "whole",
    "write_json",
    "write_whole",
]

MOST = 64 << 20  # bytes: the size limit of a plan or a record, far above real sizes


class TooLargeError(AnynormError):
    """A file is larger than the limit."""


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to a temporary file and rename it to `path`: an error does not change `path`.

    Missing folders are created.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/new/page.txt", "all of it")
    ...     Path(f"{folder}/new/page.txt").read_text()
    'all of it'
    """
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write plain values as JSON, as :func:`write_whole` does; numbers not finite become null."""
    write_whole(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Return plain values with None for NaN and infinities, which JSON does not have.

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
    """Give a path to write to; what is there at the end of the block takes the place of `path`.

    If the block raises, `path` is as it was. A link is followed, a file keeps its mode, and what is
    no regular file, such as a device, is written to and not replaced.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with _into(target) as elsewhere:
            yield elsewhere
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = _new(target)
    try:
        yield beside
        if target.exists():
            beside.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _new(target: Path) -> Path:
    """Make an empty file beside `target`, with a random name, so that nobody can plant a link."""
    beside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return beside


@contextmanager
def _into(device: Path) -> Iterator[Path]:
    """Yield a temporary path; at the end its content is sent to a device or a pipe."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "text")
        yield file
        with device.open("wb") as stream:
            stream.write(file.read_bytes())


def read_bounded(path: str | os.PathLike[str], most: int | None = None) -> str:
    """Return the text of a file of at most `most` bytes (`MOST`); an endless device has more.

    Raises `TooLargeError` for a larger one, and whatever reading and decoding it raise.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(f"{folder}/text").write_text("abc")
    ...     read_bounded(f"{folder}/text", most=3)
    'abc'
    """
    most = MOST if most is None else most
    with open(path, "rb") as stream:
        return decoded(stream.read(most + 1), os.fspath(path), most)


def decoded(content: bytes, name: str, most: int) -> str:
    """Return the text of what was read of a file, up to a byte more than `most`."""
    if len(content) > most:
        raise TooLargeError(
            f"{name!r} is larger than the limit of {most} bytes. If this is intended, raise "
            "anynorm.report.files.MOST, or give most= where there is that argument."
        )
    return content.decode("utf-8")


def check_target(target: str | os.PathLike[str], kind: str) -> None:
    """Check before long work whether a file can be written.

    Missing folders are created.  Raises `AnynormError`, which names the file by its `kind`.
    """
    try:
        path = Path(os.path.realpath(target))
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a null byte in the name is a ValueError
        raise AnynormError(f"the {kind} {str(target)!r} cannot be written: {error}.") from error
    place = path if path.exists() and not path.is_file() else path.parent
    if path.is_dir() or not os.access(place, os.W_OK):
        raise AnynormError(f"the {kind} {str(target)!r} cannot be written; name another file.")
