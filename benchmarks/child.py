"""Measurements in processes of their own, which print what they find as JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT

__all__ = ["command", "result", "within"]


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


def within(
    seconds: float,
    words: Sequence[str],
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> int | None:
    """Run a command; end it with its children in time, and return None, else its exit status.

    What it prints goes to `log` if one is given.
    """
    surroundings = {**os.environ, **(environment or {})}
    target = None if log is None else log.open("w", encoding="utf-8")
    try:
        with subprocess.Popen(
            words,
            cwd=ROOT,
            env=surroundings,
            stdout=target,
            stderr=target,
            start_new_session=True,
        ) as process:
            try:
                return process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return None
    finally:
        if target is not None:
            target.close()
