"""The C library's allocator: a setting to keep freed memory instead of returning it.

By default glibc requests every large block anew from the system.  At the first write to each page
there is a page fault, and the system clears the page.  On the CPU this takes longer than to
normalize the values in the block.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["allocator_setting", "tune_allocator"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # as in malloc.h
_PROBE = 1 << 20

_state = "as the system has it"


def allocator_setting() -> str:
    """Describe the setting of the allocator as text."""
    return _state


def tune_allocator() -> bool:
    """Keep freed memory for the next tensor, from now on and in the whole process.

    This works only with glibc's allocator, on Linux; elsewhere nothing is changed, and
    `anynorm.info` says why. Call it once, before the first large tensor.

    The cost is memory: the process keeps its peak, and free memory that is fragmented by small
    blocks cannot be used for large ones. ``docs/install.md`` has figures.

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
    """Change the setting of glibc; return the reason if that failed."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        return "only glibc on Linux can be told to keep memory"
    if not _allocates(libc):
        return "another allocator than glibc's is in use"
    # Do not use mmap for single blocks, and never return the top of the heap. (The alternative,
    # a larger M_MMAP_THRESHOLD, is capped at 32 MiB in older versions of glibc.)
    accepted = libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1)
    return None if accepted else "glibc refused"


class _Use(ctypes.Structure):
    """``struct mallinfo``: ten counts of memory that glibc's allocator holds or has allocated."""

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
