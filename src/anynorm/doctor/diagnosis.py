"""The result of the doctor: causes, findings, and the checks that could not run."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anynorm.doctor.case import Numbers
from anynorm.doctor.causes.cause import SEVERITIES, Cause
from anynorm.doctor.undecided import Undecided
from anynorm.report.diagnosis import write
from anynorm.report.diagnosis_terminal import show
from anynorm.surgery.receipt import Result

if TYPE_CHECKING:
    from rich.console import Console

    from anynorm.doctor.check import Check
    from anynorm.doctor.repair import Patient

__all__ = ["SEVERITIES", "Diagnosis", "Finding", "Skipped", "arranged"]


@dataclass(frozen=True)
class Finding:
    """A fault that a check found, with evidence and advice.

    Args:
        check: the number of the check.
        name: its name.
        severity: "error", "warning" or "info".
        layer: the name of the layer; "" for the model.
        message: what was found.
        numbers: the measured numbers, by name.
        threshold: the threshold, in words.
        why: why it matters.
        fix: a line of code that repairs it.
        citation: the source.
        effect: the measured number divided by its threshold.
        order: the place in the forward pass.

    Example:
        >>> from torch import nn
        >>> import anynorm
        >>> found = anynorm.doctor(nn.BatchNorm1d(3, momentum=0.99).eval(), checks=[7]).findings[0]
        >>> found.check, found.severity
        (7, 'warning')
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
        """Plain values for JSON; numbers that are not finite become text."""
        plain = {**vars(self), "numbers": {k: _plain(v) for k, v in self.numbers.items()}}
        return {**plain, "effect": _plain(self.effect)}


@dataclass(frozen=True)
class Skipped:
    """A check that could not run, and what it needs.

    Args:
        check: the number of the check.
        name: its name.
        needs: what is missing.

    Example:
        >>> print(Skipped(1, "running mean", "batches"))
        1 (running mean) needs batches
    """

    check: int
    name: str
    needs: str

    @property
    def asked(self) -> bool:
        """Whether it lacks something that a user would normally give, such as labels.

        Arguments for special situations do not count, such as `source=` for a converted model.
        """
        return not any(word in self.needs for word in _OTHERS)

    def __str__(self) -> str:
        return f"{self.check} ({self.name}) needs {self.needs}"


# Arguments for situations that most models are not in.
_OTHERS = ("averaged=", "target=", "source=", "optimizer=", "accumulation=", "process group")


def _plain(value: float | int | str) -> float | int | str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def arranged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort by severity, then by the largest effect of a check, then by the order of layers.

    A broken layer changes the inputs of later layers, so the first finding of a check is its cause.
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
        from anynorm.doctor.repair import repaired

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
