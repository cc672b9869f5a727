"""What a diagnosis says: findings, what was healthy, what could not be checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anynorm.doctor.case import Numbers
from anynorm.doctor.undecided import Undecided
from anynorm.report.diagnosis import write
from anynorm.report.diagnosis_terminal import show
from anynorm.surgery.receipt import Result

if TYPE_CHECKING:
    from rich.console import Console

    from anynorm.doctor.check import Check
    from anynorm.doctor.repair import Patient

__all__ = ["SEVERITIES", "Diagnosis", "Finding", "Skipped", "arranged"]

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """Something that a check found at a layer ("" for the model), with evidence and advice.

    `effect` is the measured number over its threshold, `order` the place in the forward pass.
    """

    check: int
    name: str
    severity: str
    layer: str
    message: str
    numbers: Numbers
    threshold: str
    why: str
    fix: str
    citation: str
    effect: float
    order: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON has: what is not finite becomes text."""
        plain = {**vars(self), "numbers": {k: _plain(v) for k, v in self.numbers.items()}}
        return {**plain, "effect": _plain(self.effect)}


@dataclass(frozen=True)
class Skipped:
    """A check that could not run, and what it needs."""

    check: int
    name: str
    needs: str

    def __str__(self) -> str:
        return f"{self.check} ({self.name}) needs {self.needs}"


def _plain(value: float | int | str) -> float | int | str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def arranged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By severity, then the check with the largest effect first, each in the order of layers.

    A layer behind a broken one gets other inputs, so the first one of a check is the cause.
    """
    every = list(findings)
    largest: dict[tuple[str, int], float] = {}
    for one in every:
        key = (one.severity, one.check)
        largest[key] = max(largest.get(key, 0.0), one.effect)
    return tuple(
        sorted(
            every,
            key=lambda one: (
                SEVERITIES.index(one.severity),
                -largest[one.severity, one.check],
                one.check,
                one.order,
            ),
        )
    )


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The result of :func:`anynorm.doctor`.

    `findings` come by severity ("error", "warning", "info"), those of one check in the order of
    the forward pass; `skipped` are checks that lacked something; `undecided` are layers
    for which the data are too few; `facts` say what was examined.
    """

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    facts: Mapping[str, Any]
    checks: tuple[Check, ...] = field(repr=False)
    patient: Patient = field(repr=False)
    undecided: tuple[Undecided, ...] = ()

    @property
    def status(self) -> int:
        """0 for a healthy model, 1 if there is an error or a warning."""
        return int(any(one.severity != "info" for one in self.findings))

    @property
    def healthy(self) -> bool:
        """Whether nothing but information was found."""
        return self.status == 0

    def fix(self, inplace: bool = False) -> Result:
        """Apply the repairs that are safe, and list the others as refused with their advice.

        Returns the repaired model, a copy unless `inplace`, and one receipt with the difference of
        the outputs on the first batch.  Safe are: running statistics recomputed (checks 1 to 4, 9
        and 14), the momentum (7 and 12), layers frozen (8) and idle biases folded into the running
        mean (16).  Recomputing needs batches that can be gone through again.
        """
        from anynorm.doctor.repair import repaired

        return repaired(self.findings, self.patient, inplace=inplace)

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
            "schema": 1,
            "healthy": self.healthy,
            "status": self.status,
            "facts": dict(self.facts),
            "findings": [one.to_dict() for one in self.findings],
            "checks": [self._row(check) for check in self.checks],
            "skipped": [vars(one) for one in self.skipped],
            "undecided": [vars(one) for one in self.undecided],
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
        lines = [f"{self.facts['model']}: {'healthy' if self.healthy else 'not healthy'}"]
        lines += [f"  {f.severity} {f.check} {f.layer!r}: {f.message}" for f in self.findings]
        return "\n".join(lines + [f"  skipped {one}" for one in self.skipped])
