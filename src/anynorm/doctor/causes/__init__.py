"""Causes: each explains several findings, and has a repair and the effect of its trial."""

from __future__ import annotations

from anynorm.doctor.causes.cause import Cause

__all__ = ["Cause"]
