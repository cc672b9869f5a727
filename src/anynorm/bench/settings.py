"""How the C library's allocator is set: as the system has it, or keeping freed memory."""

from __future__ import annotations

import anynorm
from anynorm.errors import AnynormError

__all__ = ["SETTINGS", "adopt"]

SETTINGS = ("default", "kept")


def adopt(setting: str) -> None:
    """Set the allocator of this process; raises `AnynormError` where that cannot be done."""
    if setting == "kept" and not anynorm.tune_allocator():
        raise AnynormError(
            f"freed memory cannot be kept here: {anynorm.info().allocator}. Measure with "
            "--allocator default alone."
        )
