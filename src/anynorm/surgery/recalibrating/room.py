"""How many batches may wait in the middle of their forward passes: a bound on their memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist
from torch.utils._pytree import tree_leaves

from anynorm.surgery.batches import Batch
from anynorm.surgery.streaming_stats import in_group

__all__ = ["Room", "allowed", "bytes_of", "shapes_of", "shown"]

_SHARE = 0.5  # of the free memory


@dataclass(frozen=True)
class Room:
    """A bound in bytes, and what a batch needs of it while it waits; one batch always may.

    Args:
        bound: for all batches that wait.
        each: what a batch with so many bytes needs; larger ones need more in proportion.
        size: the bytes of that batch itself.
        shapes: the only shapes of batches that may wait together; None for any.
    """

    bound: float
    each: float = 0.0
    size: float = 0.0
    shapes: list[torch.Size] | None = None

    def needed(self, batch: Batch) -> float:
        """The bytes that a batch needs, at least 1.

        >>> Room(100.0, each=24, size=12).needed(torch.zeros(9))
        72.0
        """
        if self.shapes is not None and shapes_of(batch) != self.shapes:
            return math.inf
        scale = bytes_of(batch) / self.size if self.size else 1.0
        return max(self.each * scale, 1.0)

    def full(self, used: float) -> bool:
        """Whether batches that need so much are too many."""
        return used > self.bound or math.isinf(used)


def bytes_of(batch: Batch) -> int:
    """The bytes of the tensors of a batch.

    >>> bytes_of((torch.zeros(3), {"more": torch.zeros(2)}))
    20
    """
    return sum(t.nbytes for t in tree_leaves(batch) if isinstance(t, Tensor))


def shapes_of(batch: Batch) -> list[torch.Size]:
    """The shapes of the tensors of a batch, without their first axis.

    >>> shapes_of((torch.zeros(8, 3, 5), torch.zeros(8)))
    [torch.Size([3, 5]), torch.Size([])]
    """
    return [t.shape[1:] for t in tree_leaves(batch) if isinstance(t, Tensor)]


def allowed(device: torch.device | None, group: dist.ProcessGroup | None) -> float:
    """The memory that batches may take without being asked: half of what is free.

    Processes of a group share that of a processor.
    """
    if device is not None and device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return _SHARE * (torch.cuda.mem_get_info(device)[0] + unused)
    return _SHARE * min(_free()) / (dist.get_world_size(group) if in_group() else 1)


def _free() -> Iterator[float]:
    """What is free on this machine, and what is left of the limits of this process's group."""
    information = Path("/proc/meminfo")
    if information.is_file():
        yield 1024.0 * _numbers(information)["MemAvailable:"]
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        yield 4.0 * 2**30
    for folder, limit, used in _LIMITS:
        if (folder / limit).is_file() and (folder / used).is_file():
            most = (folder / limit).read_text().strip()
            # The system takes back the memory of files that nobody uses.
            files = _numbers(folder / "memory.stat").get("inactive_file", 0)
            if most.isdigit():
                yield max(int(most) - int((folder / used).read_text()) + files, 0.0)


_LIMITS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def _numbers(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def shown(amount: float) -> str:
    """An amount of memory in words.

    >>> shown(2_500_000), shown(3 * 2**30), shown(12)
    ('2.38 MiB', '3 GiB', '12 bytes')
    """
    if math.isinf(amount):
        return "any"
    unit, size = next((one for one in _UNITS if amount >= one[1]), ("bytes", 1))
    return f"{amount / size:.3g} {unit}"


_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
