"""A cause: what it explains, the evidence for it, its repair, and what the repair did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anynorm.doctor.finding import SEVERITIES, Finding

__all__ = ["Cause"]


@dataclass(frozen=True)
class Cause:
    """One thing that explains several findings.

    Args:
        name: what is wrong, in a few words.
        findings: what it explains, in the order of the diagnosis.
        evidence: sentences with the measured numbers that speak for it.
        fix: a line of code that repairs it, or what to do; "" where no repair is offered.
        effect: what the repair did when it was tried on a copy.
        sure: how sure the diagnosis is: "certain", "likely", or the other possible causes.
        repair: what :meth:`Diagnosis.fix` does: "statistics" recomputes statistics, "eps" sets ε,
            "layer" applies the repair of each finding, "none" does nothing.
        refused: why the repair is not offered; "" if it is offered.
        data: True if the data look wrong and not the model.
        unproven: why :meth:`Diagnosis.fix` needs ``accept_data=True`` for the repair: it is unknown
            whether the model or the data differ from training. "" if it does not need it.
        edits: ε by layer, for the repair "eps".
        layers: the layers whose statistics are recomputed; empty for all layers.

    Example:
        >>> from torch import nn
        >>> import anynorm
        >>> found = anynorm.doctor(nn.BatchNorm1d(3, momentum=0.99).eval(), checks=[7])
        >>> found.causes[0].name, found.causes[0].severity
        ('momentum in the other convention', 'warning')
    """

    name: str
    findings: tuple[Finding, ...]
    evidence: str
    fix: str
    effect: str
    sure: str = "certain"
    repair: str = "none"
    refused: str = ""
    data: bool = False
    unproven: str = ""
    edits: tuple[tuple[str, float], ...] = ()
    layers: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        """The worst severity among its findings."""
        return min((one.severity for one in self.findings), key=SEVERITIES.index)

    def to_dict(self, findings: tuple[Finding, ...]) -> dict[str, Any]:
        """Return plain values; the findings are named by their places in `findings`."""
        words = ["name", "severity", "evidence", "fix", "effect", "sure", "refused", "data"]
        words.append("unproven")
        places = [i for i, one in enumerate(findings) if any(one is own for own in self.findings)]
        return {**{word: getattr(self, word) for word in words}, "findings": places}
