"""The files that the commands write which examine something: a page, and plain values."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from anynorm.cli.written import say_written
from anynorm.report.files import check_target, write_json

if TYPE_CHECKING:
    from anynorm.doctor.examination import Examination

__all__ = ["add_outcome", "check_outcome", "write_outcome"]


def add_outcome(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options for the files."""
    parser.add_argument("--html", metavar="FILE", help=f"write the {what} as a page (no)")
    parser.add_argument("--json", metavar="FILE", help=f"write the {what} as plain values (no)")


def check_outcome(html: str | None, json: str | None) -> None:
    """Raise `AnynormError` if one of the files cannot be written."""
    for path, kind in ((html, "page"), (json, "JSON file")):
        if path is not None:
            check_target(path, kind)


def write_outcome(found: Examination, html: str | None, json: str | None) -> None:
    """Print the findings, and write the files that were asked for."""
    found.table()
    if html is not None:
        found.report(html)
    if json is not None:
        write_json(json, found.to_dict())
    say_written({"page": html, "JSON": json})
