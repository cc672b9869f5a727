"""The environment variables about kernels."""

from __future__ import annotations

import os

from anynorm.errors import AnynormError

__all__ = ["switch"]


def switch(name: str) -> bool | None:
    """Return an environment variable of value 0 or 1 as a bool; ``None`` if it is not set."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise AnynormError(f"{name} is {value!r}, but must be 0 or 1, or not set.")
    return value == "1" if value else None
