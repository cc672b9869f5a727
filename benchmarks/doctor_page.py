"""The tables of docs/doctor.md: ``python -m benchmarks.doctor_page`` writes them anew."""

from __future__ import annotations

from pathlib import Path

from anynorm.doctor import CHECKS
from anynorm.doctor.causes.table import CAUSES
from benchmarks import ROOT, doctor_causes, doctor_pretrained
from benchmarks.calibrate import FILE, alarms, table
from benchmarks.page import fill, line
from benchmarks.result_files import read

__all__ = ["PAGE", "causes", "checks", "main", "tables"]

PAGE = ROOT / "docs" / "doctor.md"


def checks() -> str:
    """What each check measures, from when on it is found, and what is advised."""
    lines = ["| # | check | measures | found if | severity | source |", "|---|---|---|---|---|---|"]
    for check in CHECKS:
        severity = check.severities or check.severity
        words = (check.name, check.measures, check.threshold, severity, check.citation)
        lines.append(line((str(check.number), *map(_cell, words))))
    return "\n".join(lines)


def causes() -> str:
    """The causes that the doctor knows, in the order in which it looks for them."""
    lines = ["| cause | evidence |", "|---|---|"]
    lines += [line((row.name, _cell(row.evidence))) for row in CAUSES]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def tables() -> dict[str, str]:
    """The tables by the name of their marker."""
    result = read(FILE)
    return {
        "causes": causes(),
        "checks": checks(),
        "false alarms": f"{table(result)}\n\n{alarms(result)}",
        "planted causes": doctor_causes.table(read(doctor_causes.FILE)),
        "networks of others": doctor_pretrained.table(read(doctor_pretrained.FILE)),
    }


def main(page: Path = PAGE) -> None:
    """Write the tables between their markers."""
    for name, words in tables().items():
        fill(page, name, words)


if __name__ == "__main__":
    main()
