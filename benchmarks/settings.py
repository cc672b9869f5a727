"""How the C library's allocator is set: as the system has it, or keeping freed memory."""

from __future__ import annotations

import anynorm

__all__ = ["SETTINGS", "adopt"]

SETTINGS = ("default", "kept")


def adopt(setting: str) -> None:
    """Set the allocator of this process; leave it with a reason where that cannot be done."""
    if setting == "kept" and not anynorm.tune_allocator():
        raise SystemExit(f"{setting}: {anynorm.info().allocator}")
