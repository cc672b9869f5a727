"""How a process that measures is set, and the memory that it has had."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

import anynorm
from anynorm.errors import AnynormError

__all__ = ["SETTINGS", "adopt", "peak_megabytes"]

# The C library's allocator as the system has it, or keeping freed memory.
SETTINGS = ("default", "kept")


def adopt(device: str, allocator: str = "default", threads: int | None = None) -> None:
    """Set the GPU on whose stream kernels and events go, the allocator and torch's threads.

    Raises `AnynormError` where the allocator cannot be set so.
    """
    if device != "cpu":
        torch.cuda.set_device(device)
    if allocator == "kept" and not anynorm.tune_allocator():
        raise AnynormError(
            f"freed memory cannot be kept here: {anynorm.info().allocator}. Measure with "
            "--allocator default alone."
        )
    if threads:
        torch.set_num_threads(threads)


def peak_megabytes() -> float:
    """Return the most memory that this process has had so far.

    Linux' own count begins with the process, getrusage's with its parent's.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
