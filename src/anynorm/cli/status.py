"""What the exit status of a command says."""

from __future__ import annotations

__all__ = ["BAD_INPUT", "DONE", "INTERRUPTED", "NOT_ALL"]

DONE, NOT_ALL, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
