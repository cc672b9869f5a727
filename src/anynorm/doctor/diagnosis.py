"""The result of the doctor: causes, findings, and the checks that could not run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anynorm.doctor.causes.cause import Cause
from anynorm.doctor.check import Check
from anynorm.doctor.finding import Finding, Skipped
from anynorm.doctor.repair import Patient, repaired
from anynorm.doctor.undecided import Undecided
from anynorm.report.diagnosis import write
from anynorm.report.diagnosis_terminal import show
from anynorm.surgery.receipt import Result

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Diagnosis"]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The result of :func:`anynorm.doctor`.

    Args:
        findings: sorted by severity ("error", "warning", "info"); findings of one check are in the
            order of the forward pass.
        skipped: checks that could not run.
        facts: what was examined, in numbers.
        checks: the checks that were asked for.
        patient: the model, and how it is called.
        causes: what explains the findings, the worst first; see `anynorm.doctor.Cause`.
        examined: the names of the layers that were examined.
        not_examined: the names of the others, each with the reason.
        undecided: layers with too few data for a check.
        hidden: True if layers that were not examined may have a fault.

    Example:
        >>> from torch import nn
        >>> import anynorm
        >>> found = anynorm.doctor(nn.BatchNorm1d(3, momentum=0.99).eval(), checks=[7])
        >>> found.status, [cause.name for cause in found.causes]
        (1, ['momentum in the other convention'])
    """

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    facts: Mapping[str, Any]
    checks: tuple[Check, ...] = field(repr=False)
    patient: Patient = field(repr=False)
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

    def fix(self, inplace: bool = False, *, accept_data: bool = False) -> Result:
        """Apply the safe repairs, and list the others as refused with their advice.

        A repair is safe if it restores the function that was trained, or does not change it.  These
        are: recompute running statistics (checks 1 to 4, 9 and 14) if the trial did no harm, set ε,
        set the momentum (7 and 12), freeze layers (8), and fold biases into the running mean (16).
        To recompute statistics, the batches must be usable again: a list or a loader.

        Args:
            inplace: change the model itself and not a copy.
            accept_data: recompute statistics even if the data look wrong and not the model, or if
                it is unknown which of them is wrong.

        Returns:
            The repaired model, and one receipt with the difference of the outputs on the first
            batch.

        Raises:
            AnynormError: for a model that cannot be copied; give ``inplace=True`` then.

        Example:
            >>> from torch import nn
            >>> import anynorm
            >>> found = anynorm.doctor(nn.BatchNorm1d(3, momentum=0.99).eval(), checks=[7])
            >>> found.fix().model.momentum
            0.01
        """
        return repaired(
            self.findings, self.causes, self.patient, inplace=inplace, accept_data=accept_data
        )

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
