"""Causes: findings that one thing explains, with the repair and what it did when it was tried."""

from __future__ import annotations

from anynorm.doctor.causes.cause import Cause

__all__ = ["Cause"]
