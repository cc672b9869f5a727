"""The result of the doctor, and its repairs."""

from __future__ import annotations

from dataclasses import dataclass, field

from anynorm.doctor.examination import Examination
from anynorm.doctor.repair import Patient, repaired
from anynorm.surgery.receipt import Result

__all__ = ["Diagnosis"]


@dataclass(frozen=True, eq=False)
class Diagnosis(Examination):
    """The result of :func:`anynorm.doctor`.

    Args:
        findings: sorted by severity ("error", "warning", "info"); findings of one check are in the
            order of the forward pass.
        skipped: checks that could not run.
        facts: what was examined, in numbers.
        checks: the checks that were asked for.
        causes: what explains the findings, the worst first; see `anynorm.doctor.Cause`.
        examined: the names of the layers that were examined.
        not_examined: the names of the others, each with the reason.
        undecided: layers with too few data for a check.
        hidden: True if layers that were not examined may have a fault.
        patient: the model, and how it is called.

    Example:
        >>> from torch import nn
        >>> import anynorm
        >>> found = anynorm.doctor(nn.BatchNorm1d(3, momentum=0.99).eval(), checks=[7])
        >>> found.status, [cause.name for cause in found.causes]
        (1, ['momentum in the other convention'])
    """

    patient: Patient = field(repr=False, kw_only=True)

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
