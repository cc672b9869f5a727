"""Print the files that a command wrote."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["say_written"]


def say_written(files: Mapping[str, str | None]) -> None:
    """Print the kind and the path of each file that was asked for.

    >>> say_written({"report": "report.html", "receipt": None})
    report: report.html
    """
    for kind, path in files.items():
        if path is not None:
            print(f"{kind}: {path}")
