"""The exit statuses of the commands."""

from __future__ import annotations

__all__ = ["BAD_INPUT", "CUT_OFF", "DONE", "INTERRUPTED", "NOT_ALL"]

DONE, NOT_ALL, BAD_INPUT, INTERRUPTED, CUT_OFF = 0, 1, 2, 130, 141
