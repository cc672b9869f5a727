"""Results as files: what they were measured on, written whole or not at all."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anynorm import kernels
from anynorm.errors import AnynormError
from anynorm.info import processor
from anynorm.report.files import read_bounded, write_whole
from anynorm.report.text import rounded
from benchmarks import ROOT
from benchmarks.hardware import hardware

__all__ = ["SCHEMA", "about", "file_name", "load", "read", "target", "write"]

SCHEMA = 1
# Variables that change what is measured.
TELLING = re.compile(
    "ANYNORM_|OMP_|KMP_|MKL_|MALLOC_|GLIBC_TUNABLES|LD_PRELOAD|THP_MEM|TORCH|XLA_|PYTORCH_|"
    "CUDA_(LAUNCH|MODULE|VISIBLE)|TRITON_INTERPRET"
)
PACKAGES = ("triton", "jax", "liger-kernel", "apex", "quack-kernels", "flash-attn")

Result = dict[str, Any]


def about(allocator: str, settings: Mapping[str, Any], device: str = "cpu") -> Result:
    """Describe the code, the machine and the settings of a run."""
    changes = _git("status", "--porcelain", "--", ":!benchmarks/results")
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        # A copy without its history may be told what it is a copy of.
        "commit": _git("rev-parse", "HEAD") or os.environ.get("ANYNORM_COMMIT"),
        "dirty": None if changes is None else changes != "",
        "device": device,
        "gpu": hardware(device),
        "allocator": allocator,
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": kernels.isa(),
        "kernels": kernels.available(),
        "huge_pages": kernels.huge_pages(),
        "torch": torch.__version__,
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "jax": _version("jax"),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": load(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if TELLING.match(k)},
        "settings": dict(settings),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    if not (ROOT / ".git").exists():  # a copy, perhaps inside another repository
        return None
    try:
        command = ("git", "-C", str(ROOT), *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def load() -> float | None:
    """How many processes have run in the last minute, on average; unknown on some systems."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def cpu() -> str:
    """The processor's name, with the numbers that tell generations of one name apart."""
    found = processor()
    if "model name" not in found:
        return platform.processor() or platform.machine()
    return "{model name}, family {cpu family}, model {model}".format_map(found)


def file_name(described: Result, kind: str = "layers") -> str:
    """One file for each GPU, or each machine, number of threads and setting of the allocator.

    >>> file_name({"cpu": "AMD EPYC, family 26", "threads": 2, "allocator": "kept"})
    'layers-amd-epyc-family-26-2-threads-kept.json'
    """
    words = f"{kind} {described['cpu']} {described['threads']} threads {described['allocator']}"
    if gpu := described.get("gpu"):
        words = f"{kind} {gpu['name']}"
    return "-".join(re.findall("[a-z0-9]+", words.lower())) + ".json"


def target(out: Path, described: Result) -> Path:
    """The file that is written: `out`, or one in that folder."""
    return out if out.suffix == ".json" else out / file_name(described)


def write(path: Path, result: Result) -> None:
    """Write a result whole or not at all, with the four digits that are measured."""
    shown = json.dumps(rounded(result, digits=4), indent=1, ensure_ascii=False)
    write_whole(path, shown + "\n")


def read(path: Path) -> Result:
    """Return what is in a file; raises `AnynormError` where it is no result of this schema."""
    try:
        found: Result = json.loads(read_bounded(path))
        schema = found["about"]["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnynormError(f"{str(path)!r} is no result of a benchmark: {error}.") from error
    if schema != SCHEMA:
        raise AnynormError(f"{str(path)!r} has schema {schema}, not {SCHEMA}; measure it anew.")
    return found
