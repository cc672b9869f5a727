"""The tables of docs/study.md: ``python -m benchmarks.study_page`` writes them anew."""

from __future__ import annotations

from pathlib import Path

from benchmarks import ROOT
from benchmarks.page import fill
from benchmarks.result_files import read
from benchmarks.verdict import FILE, error_table, growth_table, margin_table, power_table

__all__ = ["PAGE", "main", "tables"]

PAGE = ROOT / "docs" / "study.md"


def tables() -> dict[str, str]:
    """The tables by the name of their marker."""
    rows = read(FILE)["rows"]
    return {
        "errors": error_table(rows),
        "power": power_table(rows),
        "growth": growth_table(rows),
        "margin": margin_table(rows),
    }


def main(page: Path = PAGE) -> None:
    """Write the tables between their markers."""
    for name, words in tables().items():
        fill(page, name, words)


if __name__ == "__main__":
    main()
