"""The doctor: measurements, findings and advice for the normalization of a trained model.

The package can be called: ``anynorm.doctor(model, batches)`` is `anynorm.doctor.api.doctor`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from anynorm.doctor.api import doctor
from anynorm.doctor.diagnosis import Diagnosis, Finding, Skipped
from anynorm.doctor.table import CHECKS

__all__ = ["CHECKS", "Diagnosis", "Finding", "Skipped", "doctor"]


class _Callable(ModuleType):
    """Python binds a package's name to the module, which would hide a function of that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Diagnosis:
        return doctor(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
