"""The result of the audit."""

from __future__ import annotations

from dataclasses import dataclass

from anynorm.doctor.examination import Examination

__all__ = ["Audit"]


@dataclass(frozen=True, eq=False)
class Audit(Examination):
    """The result of :func:`anynorm.audit`.

    Args:
        findings: sorted by severity ("error", "warning", "info").
        skipped: checks that could not run.
        facts: what was examined, in numbers.
        checks: the checks that were run.
        causes: none; they are the doctor's.
        examined: the names of the normalizers that were examined.
        not_examined: the names of what was not, each with the reason.
        undecided: none; they are the doctor's.
        hidden: True if what was not examined may have a fault.

    Example:
        >>> from torch import nn
        >>> import anynorm
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
        >>> found = anynorm.audit(torch.export.export(model, (torch.randn(8, 3),)))
        >>> [(one.check, one.layer) for one in found.findings if one.severity == "error"]
        [(4, '1'), (101, '1')]
    """

    @property
    def status(self) -> int:
        """0: healthy, also without normalizers; 1: errors or warnings; 3: some is not examined."""
        if any(one.severity != "info" for one in self.findings):
            return 1
        return 3 if self.hidden else 0
