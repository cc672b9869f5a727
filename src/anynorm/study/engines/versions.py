"""What must be the same on every machine of a study, so that its records can be compared."""

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
SWITCHES = ("ANYNORM_KERNELS", "ANYNORM_ISA")


@cache
def versions() -> Versions:
    """Those of this process: anynorm with a fingerprint of its source, torch, Python.

    The switches of the environment that change how anynorm computes count, too.
    """
    found = {
        "anynorm": f"{anynorm.__version__} (source {_fingerprint()})",
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    return found | {name: os.environ.get(name, "unset") for name in SWITCHES}


def differences(driver: Versions) -> str:
    """What this process has otherwise than the driver, in a sentence; '' when nothing.

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
        "Records of different versions cannot be compared: install the same on every node, and "
        "give the same command again."
    )


def _fingerprint() -> str:
    """Eight digits of a hash over the package's Python files: a version names many of them."""
    root = Path(anynorm.__file__).parent
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    total = hashlib.sha256()
    for name in files:
        total.update(name.encode() + b"\0" + (root / name).read_bytes())
    return total.hexdigest()[:8]
