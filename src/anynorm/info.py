"""What anynorm runs on: versions, machine, kernels and allocator."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch

from anynorm import kernels

__all__ = ["Info", "info"]


@dataclass(frozen=True)
class Info:
    """The surroundings of this process, each as a line for people to read."""

    anynorm: str
    python: str
    torch: str
    numpy: str
    system: str
    cpu: str
    instruction_set: str
    threads: str
    kernels: str
    allocator: str
    huge_pages: str


def info() -> Info:
    """Describe versions, machine, kernels and allocator, as ``anynorm info`` prints them.

    >>> import anynorm
    >>> anynorm.info().torch == torch.__version__
    True
    """
    from anynorm import __version__

    return Info(
        anynorm=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
        system=f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        cpu=f"{_cpu()} ({platform.machine()})",
        instruction_set=_instruction_set(),
        threads=str(torch.get_num_threads()),
        kernels=_kernels(),
        allocator=kernels.allocator_setting(),
        huge_pages=_huge_pages(),
    )


def _cpu() -> str:
    """Return the processor's name, which Python knows only on some systems."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _instruction_set() -> str:
    """Return what the kernels use and what torch's own use: an environment may lower either."""
    torchs = torch.backends.cpu.get_cpu_capability()
    return f"{kernels.isa() or 'none of ours'} (torch: {torchs.lower()})"


def _kernels() -> str:
    """Return whether the compiled kernels run, or why not."""
    why_not = kernels.why_not()
    return f"plain PyTorch, since {why_not}" if why_not else "compiled"


def _huge_pages() -> str:
    """Return whether the kernels ask for them, and whether the system would listen."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    asked = "asked for" if kernels.huge_pages() else "not asked for"
    if not setting.is_file():
        return asked
    return f"{asked} (system: {setting.read_text('utf-8').partition('[')[2].partition(']')[0]})"
