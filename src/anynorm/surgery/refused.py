"""Why a verb leaves a layer as it is."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):  # noqa: N818 - a decision about one layer, not an error
    """Raised with the reason, which goes into the receipt."""
