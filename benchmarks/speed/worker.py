"""A process that measures: the request comes as JSON, what is found goes out line by line.

The first line describes the run, each other is a case, unless the last says who broke the device.
Run by `benchmarks.speed.run`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from anynorm.bench.cases import Case
from anynorm.bench.timing import Budget
from anynorm.errors import AnynormError
from benchmarks.process import adopt
from benchmarks.result_files import about
from benchmarks.speed.contestants import BrokenDeviceError
from benchmarks.speed.measure import measure

__all__ = ["main", "work"]


def main() -> None:
    """Serve one request; where that cannot go on, leave with the reason."""
    request = json.load(sys.stdin)
    with _own_output() as out:
        try:
            work(request, out)
        except AnynormError as error:
            raise SystemExit(f"{error}") from error


def _own_output() -> TextIO:
    """The standard output for us alone: whatever libraries print goes to the standard error."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def work(request: Mapping[str, Any], out: TextIO) -> None:
    """Measure the cases of a request, until a contestant breaks the device."""
    adopt(request["device"], request["allocator"], request["threads"])
    described = about(request["allocator"], request["settings"], request["device"])
    print(json.dumps(described), file=out, flush=True)
    cases = [Case(**{**plain, "shape": tuple(plain["shape"])}) for plain in request["cases"]]
    budget = Budget(**request["budget"])
    try:
        for row in measure(cases, request["peers"], budget, request["device"]):
            print(json.dumps(row), file=out, flush=True)
    except BrokenDeviceError as error:
        told = {"broken": error.contestant, "reason": error.reason}
        print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()
