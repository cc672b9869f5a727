"""The doctor: measurements, findings and advice for the normalization of a trained model.

The package can be called: ``anynorm.doctor(model, batches)`` is `anynorm.doctor.api.doctor`.
"""

from __future__ import annotations

from anynorm.doctor.api import doctor
from anynorm.doctor.causes import Cause
from anynorm.doctor.diagnosis import Diagnosis
from anynorm.doctor.finding import Finding, Skipped
from anynorm.doctor.table import CHECKS
from anynorm.doctor.undecided import Undecided
from anynorm.packages import make_callable

__all__ = ["CHECKS", "Cause", "Diagnosis", "Finding", "Skipped", "Undecided", "doctor"]

make_callable(__name__, doctor)
