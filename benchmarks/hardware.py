"""The GPU of a measurement: what it is, how much memory a call takes there, whether it works."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from typing import Any

import torch

from anynorm.bench.timing import Call

__all__ = ["hardware", "healthy", "peak"]


def peak(call: Call, device: str) -> int | None:
    """Return the most bytes that a call has at once on a GPU, beyond those that were there."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(device) - before


def healthy(device: str) -> bool:
    """Whether a device still works after an error: some leave a GPU's context unusable."""
    try:
        if device != "cpu":
            torch.cuda.synchronize()
    except Exception:
        return False
    return True


def hardware(device: str) -> dict[str, Any] | None:
    """Describe a GPU: name, multiprocessors, bytes of cache and memory, and its software."""
    if device == "cpu":
        return None
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "multiprocessors": found.multi_processor_count,
        "l2_bytes": found.L2_cache_size,
        "memory_bytes": found.total_memory,
        "capability": f"{found.major}.{found.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
    }


@functools.cache
def _driver() -> str | None:
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()
    return None
