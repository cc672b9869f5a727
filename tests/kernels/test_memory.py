"""Calls leave nothing behind: what leaks between tensors would keep glibc from reusing theirs."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable

import pytest
import torch

from anynorm import kernels

ops = torch.ops.anynorm
LIBC = ctypes.CDLL(None)
ON_GLIBC = sys.platform == "linux" and hasattr(LIBC, "mallinfo2") and "LD_PRELOAD" not in os.environ
CALLS = 500

pytestmark = [
    pytest.mark.skipif(not kernels.available(), reason=str(kernels.why_not())),
    pytest.mark.skipif(not ON_GLIBC, reason="only glibc's own allocator can be asked"),
]


class Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


if ON_GLIBC:
    LIBC.mallinfo2.restype = Mallinfo


def left_by(call: Callable[[], object]) -> float:
    """Bytes in use after a call that were not before it."""
    for _ in range(20):
        call()
    gc.collect()
    before = LIBC.mallinfo2().uordblks
    for _ in range(CALLS):
        call()
    gc.collect()
    return float(LIBC.mallinfo2().uordblks - before) / CALLS


@pytest.mark.parametrize("phi", ["identity", "leaky_relu"])
@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
def test_calls_leave_no_memory_behind(phi: str, added: bool) -> None:
    x, dy = torch.randn(2, 4, 6, 5), torch.randn(2, 4, 6, 5)
    residual = torch.randn(2, 4, 6, 5) if added else None
    weight, bias = torch.rand(1, 4, 1, 1), torch.randn(1, 4, 1, 1)
    tail = ([0, 2, 3], True, True, 2.0, 1.0, 1e-5, phi)
    _, mean, square, sign_mask = ops.standardize(x, residual, weight, bias, *tail)
    saved = (dy, x, None, sign_mask, mean, square, weight, bias)
    calls: dict[str, Callable[[], object]] = {
        "standardize": lambda: ops.standardize(x, residual, weight, bias, *tail),
        "standardize_backward": lambda: ops.standardize_backward(*saved, *tail),
        "normalize": lambda: ops.normalize(x, residual, mean, square, weight, bias, 1e-5, phi),
        "normalize_backward": lambda: ops.normalize_backward(*saved, 1e-5, phi),
    }
    # Less than the smallest block of malloc: nothing that every call leaves.
    assert {name: left for name, call in calls.items() if (left := left_by(call)) >= 8} == {}


def test_running_statistics_leave_no_memory_behind() -> None:
    mean, var, count = torch.zeros(4), torch.ones(4), torch.tensor(0)
    batch = torch.rand(4, dtype=torch.float64)
    assert left_by(lambda: ops.track_(mean, var, count, batch, batch, 0.1, 1.0)) < 8
