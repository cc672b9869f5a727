"""Measurements in processes of their own, which print what they find as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks import ROOT

__all__ = ["command", "result"]


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of the benchmarks."""
    return [sys.executable, "-m", module, *arguments]


def result(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Return what a process prints; raises `subprocess.CalledProcessError` where it fails."""
    surroundings = {**os.environ, **(environment or {})}
    done = subprocess.run(
        command(module, *arguments),
        cwd=ROOT,
        env=surroundings,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout)
