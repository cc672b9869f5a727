"""A whole run: a process that measures, begun again where it dies, and the file of its results."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from anynorm.bench import timing
from anynorm.bench.cases import Case
from anynorm.bench.comparison import OURS, resolve
from anynorm.bench.timing import Budget
from benchmarks import ROOT
from benchmarks import result_files as results
from benchmarks.child import command
from benchmarks.speed import peers

__all__ = ["BUDGETS", "bench", "lines"]

Row = Mapping[str, Any]
BUDGETS = {**timing.BUDGETS, "small": Budget(seconds=0.1, fewest=3, most=7)}
# A process that dies so often without a result will not do better.
PATIENCE = 8
# A compiler may need a minute; a kernel that waits for itself never ends.
MOST_SECONDS_A_CASE = 300.0
SECONDS_BETWEEN_WRITES = 5.0
LOAD = results.load()  # of others: before our own processes run


def bench(
    cases: Sequence[Case],
    *,
    device: str = "auto",
    peers: Sequence[str] | None = None,
    budget: Budget | None = None,
    allocator: str = "default",
    threads: int | None = None,
    out: Path | None = None,
    until: float = float("inf"),
    tell: Callable[[Row], None] = lambda _: None,
) -> results.Result | None:
    """Measure cases beside the peers, in a process of its own; None if that cannot be set so.

    `device` is auto, cpu, cuda or cuda:N, and `peers` are all that are installed unless they are
    named.  The result is written to `out` (or into that folder) as it grows; what the process says
    is `tell`-ed: first the description of the run, then each row.  No case begins after `until`
    (of `time.monotonic`).  Raises `AnynormError` for a device or peer that is not there.
    """
    request = _request(resolve(device), peers, budget, allocator, threads)
    found: results.Result | None = None
    written = time.monotonic()
    try:
        for line in lines(request, cases, until):
            if found is None:
                line |= {"load": LOAD, "wanted": len(cases)}
                found = {"about": line, "cases": [], "failed": []}
            else:
                _add(found, line)
            tell(line)
            if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                _write(found, out)
                written = time.monotonic()
    finally:  # interrupted, too
        _write(found, out)
    return found


def _request(
    device: str,
    names: Sequence[str] | None,
    budget: Budget | None,
    allocator: str,
    threads: int | None,
) -> dict[str, Any]:
    kind = device.partition(":")[0]
    present, absent = peers.chosen(names, kind)
    plan = vars(budget or BUDGETS[kind])
    settings = {"peers": present, "not_installed": absent, **plan}
    return {
        "device": device,
        "peers": present,
        "allocator": allocator,
        "threads": threads,
        "budget": plan,
        "settings": settings,
    }


def _add(found: results.Result, row: Row) -> None:
    """A row counts if ours was measured; every failure is kept beside."""
    reasons = row.get("failed", {})
    found["failed"] += [
        {"name": row["name"], "contestant": name, "reason": reason}
        for name, reason in reasons.items()
    ]
    if OURS in row.get("us", {}):
        found["cases"].append({key: value for key, value in row.items() if key != "failed"})


def _write(found: results.Result | None, out: Path | None) -> None:
    if found is not None and out is not None:
        results.write(results.target(out, found["about"]), found)


def lines(
    request: Mapping[str, Any], cases: Iterable[Case], until: float = float("inf")
) -> Iterator[dict[str, Any]]:
    """Yield the description of the run, then a row for each case.

    Where a process dies, another goes on without the peer that broke the device or, if it was not
    a peer, without the cases that share the layers it was at.
    """
    asked = {**request, "peers": list(request["peers"])}
    left, deaths, described = {case.name: case for case in cases}, 0, False
    while left and deaths < PATIENCE and time.monotonic() < until:
        last: dict[str, Any] = {}
        for last in _process({**asked, "cases": [asdict(case) for case in left.values()]}):
            if "name" in last:
                deaths = 0
                del left[last["name"]]
            if "name" in last or (not described and "broken" not in last):
                described = True
                yield last
            if time.monotonic() >= until:
                return
        if not described:  # the process has said why
            return
        deaths += 1
        yield from _without(last, asked["peers"], left)


def _without(
    last: Mapping[str, Any], names: list[str], left: dict[str, Case]
) -> Iterator[dict[str, Any]]:
    """Take out who or what ended a process, by the last that it said; yield what failed."""
    name, reason = last.get("broken", "process"), last.get("reason", "it died or hung")
    setup = next((case.setup for case in left.values()), None)
    at = [case.name for case in left.values() if case.setup == setup]
    if name in names:
        names.remove(name)
        yield {"name": at[0], "failed": {name: f"{reason}; left out from here on"}}
        return
    for case in at:
        del left[case]
        yield {"name": case, "failed": {name: reason}}


def _process(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryFile("w+") as given:  # a pipe could break, or fill and wait
        json.dump(request, given)
        given.seek(0)
        with _started(given) as process:
            assert process.stdout is not None
            try:
                while line := _next(process, process.stdout):
                    yield json.loads(line)
            finally:
                process.kill()  # where nobody reads on


def _started(given: IO[str]) -> subprocess.Popen[str]:
    # JAX is compared on the processor; elsewhere it would take the GPU's memory.
    surroundings = {"JAX_PLATFORMS": "cpu", **os.environ}
    return subprocess.Popen(
        command("benchmarks.speed.worker"),
        cwd=ROOT,
        stdin=given,
        stdout=subprocess.PIPE,
        text=True,
        env=surroundings,
    )


def _next(process: subprocess.Popen[str], lines: IO[str]) -> str:
    """Return the next line; a process that is silent for too long is ended."""
    timer = threading.Timer(MOST_SECONDS_A_CASE, process.kill)
    timer.start()
    try:
        return lines.readline()
    finally:
        timer.cancel()
