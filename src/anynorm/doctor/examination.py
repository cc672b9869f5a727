"""The result of an examination: findings, and the checks that could not run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anynorm.doctor.causes.cause import Cause
from anynorm.doctor.check import Check
from anynorm.doctor.finding import Finding, Skipped
from anynorm.doctor.undecided import Undecided
from anynorm.report.diagnosis import write
from anynorm.report.diagnosis_terminal import show

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Examination"]


@dataclass(frozen=True, eq=False)
class Examination:
    """What was found, and how it is shown; the fields are those of `Diagnosis` and `Audit`."""

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    facts: Mapping[str, Any]
    checks: tuple[Check, ...] = field(repr=False)
    causes: tuple[Cause, ...] = ()
    examined: tuple[str, ...] = ()
    not_examined: Mapping[str, str] = field(default_factory=dict)
    undecided: tuple[Undecided, ...] = ()
    hidden: bool = False

    @property
    def status(self) -> int:
        """0: examined and healthy; 1: errors or warnings; 3: not examined, or too little data."""
        if any(one.severity != "info" for one in self.findings):
            return 1
        ran = len(self.checks) > len(self.skipped)
        return 0 if self.examined and ran and not self.hidden else 3

    @property
    def healthy(self) -> bool:
        """Whether the model was examined and has no errors or warnings."""
        return self.status == 0

    def table(self, console: Console | None = None) -> None:
        """Print the findings on a terminal."""
        from anynorm.report.console import console as standard

        show(self.to_dict(), console or standard())

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the diagnosis as one HTML page that opens without a network."""
        write(self.to_dict(), path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to a file."""
        return {
            "schema": 2,
            "healthy": self.healthy,
            "status": self.status,
            "causes": [one.to_dict(self.findings) for one in self.causes],
            "examined": list(self.examined),
            "not_examined": dict(self.not_examined),
            "undecided": [vars(one) for one in self.undecided],
            "facts": dict(self.facts),
            "findings": [one.to_dict() for one in self.findings],
            "checks": [self._row(check) for check in self.checks],
            "skipped": [{**vars(one), "asked": one.asked} for one in self.skipped],
        }

    def _row(self, check: Check) -> dict[str, Any]:
        found = sum(one.check == check.number for one in self.findings)
        skipped = any(one.check == check.number for one in self.skipped)
        words = ("name", "measures", "threshold", "severity", "citation")
        return {
            "check": check.number,
            **{word: getattr(check, word) for word in words},
            "findings": found,
            "state": "found" if found else "skipped" if skipped else "healthy",
        }

    def __str__(self) -> str:
        states = {0: "healthy", 1: "not healthy", 3: "not examined, or too little data to tell"}
        lines = [f"{self.facts['model']}: {states[self.status]}"]
        lines += [f"  cause: {one.name} ({one.sure}): {one.evidence}" for one in self.causes]
        lines += [f"  {f.severity} {f.check} {f.layer!r}: {f.message}" for f in self.findings]
        return "\n".join(lines + [f"  skipped {one}" for one in self.skipped])
