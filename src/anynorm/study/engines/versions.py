"""The versions that must be equal on all machines, so that records can be compared."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from functools import cache
from pathlib import Path

import torch

import anynorm

__all__ = ["SWITCHES", "Versions", "differences", "versions"]

Versions = dict[str, str]
SWITCHES = ("ANYNORM_KERNELS", "ANYNORM_GPU", "ANYNORM_ISA")


@cache
def versions() -> Versions:
    """The versions of this process: anynorm with a fingerprint of its source, torch, Python.

    Environment variables that change how anynorm computes are included.
    """
    found = {
        "anynorm": f"{anynorm.__version__} (source {_fingerprint()})",
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    return found | {name: os.environ.get(name, "unset") for name in SWITCHES}


def differences(driver: Versions) -> str:
    """The differences of this process from the driver, as a sentence; '' if there are none.

    >>> differences(versions())
    ''
    """
    own = versions()
    named = [
        f"{name} {own.get(name, 'unknown')} there and {driver[name]} here"
        for name in driver
        if own.get(name) != driver[name]
    ]
    if not named:
        return ""
    return (
        f"the worker on {socket.gethostname()} differs from this process: {'; '.join(named)}. "
        "Records of different versions cannot be compared: install the same versions on every "
        "node, and run the same command again."
    )


def _fingerprint() -> str:
    """Eight digits of a hash over the package's Python files; a version may have many states."""
    root = Path(anynorm.__file__).parent
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    total = hashlib.sha256()
    for name in files:
        total.update(name.encode() + b"\0" + (root / name).read_bytes())
    return total.hexdigest()[:8]
