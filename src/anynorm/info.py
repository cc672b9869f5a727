"""The environment of anynorm: versions, machine, kernels and allocator."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy
import torch

from anynorm import kernels

__all__ = ["Info", "info", "processor"]


@dataclass(frozen=True)
class Info:
    """The environment of this process, each item as a line of text.

    Args:
        anynorm, python, torch, numpy: versions.
        system: the operating system, and the C library.
        cpu: the processor.
        instruction_set: that of anynorm's kernels, and that of torch's.
        threads: the number of torch's threads.
        kernels: whether the compiled kernels run, or why not.
        gpu: the GPU, and whether it has kernels, or why not.
        allocator: the setting of the allocator.
        huge_pages: whether the kernels request huge pages, and whether the system provides them.

    Example:
        >>> info().threads == str(torch.get_num_threads())
        True
    """

    anynorm: str
    python: str
    torch: str
    numpy: str
    system: str
    cpu: str
    instruction_set: str
    threads: str
    kernels: str
    gpu: str
    allocator: str
    huge_pages: str


def info() -> Info:
    """Describe versions, machine, kernels and allocator, as ``anynorm info`` prints them.

    Returns:
        The description.

    Example:
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
        gpu=_gpu(),
        allocator=kernels.allocator_setting(),
        huge_pages=_huge_pages(),
    )


def processor() -> dict[str, str]:
    """Return a field that Linux reports of the first processor, such as ``model name``, or ""."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text("utf-8", "replace") if cpuinfo.is_file() else ""
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _cpu() -> str:
    """Return the processor's name; Python itself knows it only on some systems."""
    return processor().get("model name") or platform.processor() or "unknown"


def _instruction_set() -> str:
    """Return the instruction sets of our kernels and of torch's; variables can lower either."""
    torchs = torch.backends.cpu.get_cpu_capability()
    return f"{kernels.isa() or 'none of ours'} (torch: {torchs.lower()})"


def _kernels() -> str:
    """Return whether the compiled kernels run, or why not."""
    why_not = kernels.why_not()
    return f"plain PyTorch, since {why_not}" if why_not else "compiled"


def _gpu() -> str:
    """Return the GPU and whether it has kernels, or why not."""
    why_not = kernels.cuda.why_not()
    if why_not or not torch.cuda.is_available():
        return f"no kernels, since {why_not or 'there is no GPU'}"
    name, triton = torch.cuda.get_device_name(), version("triton")
    if not kernels.cuda.enabled():
        return f"{name}, kernels in Triton {triton} not enabled (ANYNORM_GPU=1 enables them)"
    return f"{name}, kernels in Triton {triton}"


def _huge_pages() -> str:
    """Return whether the kernels request huge pages, and whether the system provides them."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    asked = "asked for" if kernels.huge_pages() else "not asked for"
    if not setting.is_file():
        return asked
    return f"{asked} (system: {setting.read_text('utf-8').partition('[')[2].partition(']')[0]})"
