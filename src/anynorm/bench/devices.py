"""The device that is measured: how time and memory are read there, and what it is."""

from __future__ import annotations

import contextlib
import functools
import math
import subprocess
from typing import Any

import torch

from anynorm.bench.timing import Call, Stopwatch, wall
from anynorm.errors import AnynormError

__all__ = ["adopt", "events", "free", "hardware", "healthy", "peak", "resolve", "sets", "stopwatch"]

# Inputs take turns until they fill the GPU's cache so many times: each comes from memory.
FILLED = 2
# Smaller inputs stay in the cache, as they do between the layers of a network.
LEAST_TO_ROTATE = 1 << 20


def resolve(name: str) -> str:
    """Return ``cpu`` or ``cuda:0`` for ``cpu``, ``cuda``, ``cuda:0`` or ``auto``.

    Raises `AnynormError` where there is no such device.

    >>> resolve("cpu")
    'cpu'
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ["auto", "cuda", *(f"cuda:{number}" for number in range(count))]
    if name not in names or not count:
        raise AnynormError(
            f"there is no device {name!r}: torch sees {count} CUDA devices here. Name cpu, auto, "
            "cuda or cuda:N."
        )
    return name if ":" in name else "cuda:0"


def adopt(device: str) -> None:
    """Make a GPU the current one, on whose stream kernels and events go."""
    if device != "cpu":
        torch.cuda.set_device(device)


def stopwatch(device: str) -> Stopwatch:
    """Return how a call is timed: by the clock, on a GPU by events on its stream."""
    return wall if device == "cpu" else events


def events(call: Call, count: int) -> float:
    """Time calls whose work the current stream does, after one that does not count.

    It keeps the GPU busy while the host queues what is timed.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / count


def sets(nbytes: int, device: str) -> int:
    """Return how many inputs of so many bytes take turns.

    >>> sets(1 << 20, "cpu")
    1
    """
    if device == "cpu" or nbytes < LEAST_TO_ROTATE:
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(1, math.ceil(FILLED * cache / nbytes))


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


def free(device: str) -> None:
    """Give memory back that no tensor uses, for the next inputs have other sizes."""
    if device != "cpu":
        torch.cuda.empty_cache()


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
