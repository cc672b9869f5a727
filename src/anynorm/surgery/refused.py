"""The exception for a layer that a verb does not change."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):  # noqa: N818 - a decision about one layer, not an error
    """A layer is not changed; the message is the reason for the receipt."""
