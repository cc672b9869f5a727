"""The C library's allocator: let it keep large blocks instead of giving them back.

glibc takes every large block freshly from the system, which clears its pages, one fault each, when
they are first written; on the CPU that takes longer than the normalization of what is in them.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["allocator_setting", "tune_allocator"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # as in malloc.h
_PROBE = 1 << 20

_state = "as the system has it"


def allocator_setting() -> str:
    """Return what is known of the allocator's setting, for people to read."""
    return _state


def tune_allocator() -> bool:
    """Keep freed memory for the next tensor, from now on and in the whole process.

    Only glibc's allocator, on Linux, can be told; elsewhere nothing is changed, and `anynorm.info`
    says why. Call it once, before the first large tensor.

    The price is memory: the process stays at its peak, and what small blocks divide cannot be used
    for large ones. ``docs/install.md`` has figures.

    Returns:
        Whether freed memory is kept.

    Example:
        >>> anynorm.tune_allocator()  # doctest: +SKIP
        True
    """
    global _state
    refusal = _tune()
    _state = f"not tuned: {refusal}" if refusal else "keeps freed memory (tune_allocator)"
    return refusal is None


def _tune() -> str | None:
    """Tell glibc; returns why it could not be told."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        return "only glibc on Linux can be told to keep memory"
    if not _allocates(libc):
        return "another allocator than glibc's is in use"
    # No block is mapped for itself, and the top of the heap is never returned. (Raising
    # M_MMAP_THRESHOLD instead is capped at 32 MiB in older versions of glibc.)
    accepted = libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1)
    return None if accepted else "glibc refused"


class _Use(ctypes.Structure):
    """``struct mallinfo``: ten counts of what glibc's allocator holds and has handed out."""

    _fields_ = (("counts", ctypes.c_int * 10),)


def _allocates(libc: ctypes.CDLL) -> bool:
    """Whether ``malloc`` is glibc's own, and not one that was preloaded."""
    libc.mallinfo.restype = _Use
    libc.malloc.restype = ctypes.c_void_p
    before = libc.mallinfo()
    block = ctypes.c_void_p(libc.malloc(_PROBE))
    after = libc.mallinfo()
    libc.free(block)
    return list(before.counts) != list(after.counts)
