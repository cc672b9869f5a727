"""Whether the GPU kernels are right on this device: their tests, within a given time."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.child import command, within

__all__ = ["OUTCOMES", "correctness", "outcome_lines"]

OUTCOMES = "outcomes.jsonl"
# The most important first.  Those that need no GPU are left out.
TESTS = tuple(
    f"tests/kernels/test_gpu_{name}.py"
    for name in ("against_formula", "layers", "running", "expanded", "compiled")
)
# Forward and backward of three kernels, which compute-sanitizer runs where it is installed.
SANITIZED = tuple(
    f"tests/kernels/test_gpu_layers.py::test_layers_are_those_of_torch[{name}-memory0]"
    for name in ("layer", "batch", "group")
)
SANITIZER = "compute-sanitizer"
FOUND = 99  # its exit status where it finds something
_SHARE = 0.75  # of the time, for the tests
_PROCESSES = 16
_SHOWN = 5


def correctness(out: Path, seconds: float) -> None:
    """Run the tests in parallel, then some under compute-sanitizer; write outcomes as they come."""
    out.mkdir(parents=True, exist_ok=True)
    (out / OUTCOMES).unlink(missing_ok=True)
    begun = time.monotonic()
    parallel = ["-n", str(min(os.cpu_count() or 1, _PROCESSES))] if _has("xdist") else []
    _run(_pytest(*TESTS, *parallel), out, seconds * _SHARE, "tests.log", OUTCOMES)
    if sanitizer := shutil.which(SANITIZER):
        words = [sanitizer, "--error-exitcode", str(FOUND), *_pytest(*SANITIZED)]
        left = seconds - (time.monotonic() - begun)
        code = _run(words, out, left, f"{SANITIZER}.log", f"{SANITIZER}.jsonl")
        told = {None: "not finished in time", 0: "nothing found"}.get(code, f"exit status {code}")
        print(f"{SANITIZER}: {told}, see {SANITIZER}.log", flush=True)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _pytest(*words: str) -> list[str]:
    plain = ("-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:benchmark")
    return command("pytest", "-p", "benchmarks.gpu_outcomes", *plain, *words)


def _run(words: list[str], out: Path, seconds: float, log: str, outcomes: str) -> int | None:
    settings = {"ANYNORM_OUTCOMES": str(out / outcomes), "ANYNORM_GPU": "1"}
    return within(max(seconds, 1), words, settings, out / log)


def outcome_lines(out: Path) -> Iterator[str]:
    """The outcomes in words: how many of each, and what the first failures said."""
    if not (out / OUTCOMES).is_file():
        return
    lines = (out / OUTCOMES).read_text("utf-8").splitlines()
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    counts = Counter(one["outcome"] for one in found)
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
    yield f"Tests of the kernels: {told or 'none was finished'} (see tests.log, {OUTCOMES})."
    failed = [one for one in found if one["outcome"] == "failed"]
    for one in failed[:_SHOWN]:
        said = [line for line in one["words"].splitlines() if line.startswith("E ")]
        yield f"- `{one['test']}`: {(said or [one['words']])[0].removeprefix('E').strip()}"
    if len(failed) > _SHOWN:
        yield f"- and {len(failed) - _SHOWN} more"
