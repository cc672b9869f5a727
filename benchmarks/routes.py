"""How a call goes through the package: Python calls, functions and files, and time beside torch.nn.

    python -m benchmarks.routes [--repeat 9]

Counted are the calls of Python functions of `anynorm`, by the interpreter's profiler.  A layer that
torch.nn lacks is timed beside the layer of torch.nn that does the most similar work, in turns.
Synchronised batch norm runs in two processes, which share the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp

import anynorm

PACKAGE = str(Path(anynorm.__file__).parent)
SMALL, MAPS, LARGE = (64, 64), (8, 64, 8, 8), (32, 64, 56, 56)


class Case(NamedTuple):
    """A layer, the layer of torch.nn that it is timed beside, and what both get."""

    name: str
    ours: Callable[[], nn.Module]
    torchs: Callable[[], nn.Module]
    shape: tuple[int, ...]
    masked: bool = False


CASES = (
    Case("BatchNorm1d", lambda: anynorm.BatchNorm1d(64), lambda: nn.BatchNorm1d(64), SMALL),
    Case("BatchNorm2d", lambda: anynorm.BatchNorm2d(64), lambda: nn.BatchNorm2d(64), LARGE),
    Case("LayerNorm", lambda: anynorm.LayerNorm(64), lambda: nn.LayerNorm(64), SMALL),
    Case("LayerNorm", lambda: anynorm.LayerNorm(1024), lambda: nn.LayerNorm(1024), (12544, 1024)),
    Case("RMSNorm", lambda: anynorm.RMSNorm(64), lambda: nn.RMSNorm(64), SMALL),
    Case("GroupNorm", lambda: anynorm.GroupNorm(8, 64), lambda: nn.GroupNorm(8, 64), SMALL),
    Case(
        "batch, by pattern", lambda: anynorm.create("batch", 64), lambda: nn.BatchNorm1d(64), SMALL
    ),
    Case("layer, by pattern", lambda: anynorm.create("layer", 64), lambda: nn.LayerNorm(64), SMALL),
    *(
        Case(
            "group, by pattern",
            lambda: anynorm.create("group", 64, groups=8),
            lambda: nn.GroupNorm(8, 64),
            shape,
        )
        for shape in (MAPS, LARGE)
    ),
    Case("L1 batch", lambda: anynorm.create("l1-batch", 64), lambda: nn.BatchNorm1d(64), SMALL),
    Case("L1 batch", lambda: anynorm.create("l1-batch", 64), lambda: nn.BatchNorm2d(64), LARGE),
    Case("batch, masked", lambda: anynorm.BatchNorm2d(64), lambda: nn.BatchNorm2d(64), MAPS, True),
)
SYNCED = Case(
    "batch, 2 processes",
    lambda: anynorm.BatchNorm2d(64, sync=True),
    lambda: nn.BatchNorm2d(64),
    MAPS,
)


class Passed(NamedTuple):
    """What a call went through."""

    calls: int
    functions: int
    files: int

    def __str__(self) -> str:
        return f"{self.calls} / {self.functions} / {self.files}"


def passed(function: Callable[[], Any]) -> Passed:
    """Count the calls of this package's Python functions."""
    seen: list[tuple[str, int]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            seen.append((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return Passed(len(seen), len(set(seen)), len({file for file, _ in seen}))


def measured(case: Case, repeat: int, calls: int | None = None) -> list[str]:
    """Return the cells of one row; `calls` are timed at once, or as many as take 20 ms."""
    x = torch.randn(case.shape, requires_grad=True)
    dy = torch.randn(case.shape)
    ours, torchs = case.ours(), case.torchs()
    given = {"mask": torch.rand(case.shape[0], *case.shape[2:]) < 0.8} if case.masked else {}

    def forward(layer: nn.Module, options: dict[str, Any]) -> Tensor:
        y: Tensor = layer(x, **options)
        return y

    for _ in range(3):
        forward(ours, given).backward(dy)
    there = passed(lambda: forward(ours, given))
    y = forward(ours, given)
    back = passed(lambda: y.backward(dy))
    times = in_turns(
        [
            lambda: forward(ours, given),
            lambda: forward(torchs, {}),
            lambda: forward(ours, given).backward(dy),
            lambda: forward(torchs, {}).backward(dy),
        ],
        repeat,
        calls,
    )
    ahead, both = (
        f"{1e6 * statistics.median(own):.0f} / {1e6 * statistics.median(other):.0f}"
        f" ({statistics.median(b / a for a, b in zip(own, other, strict=True)):.2f})"
        for own, other in (times[:2], times[2:])
    )
    shape = "×".join(map(str, case.shape))
    return [case.name, shape, str(there), str(back), ahead, both]


def in_turns(
    functions: Sequence[Callable[[], Any]], repeat: int, calls: int | None
) -> list[list[float]]:
    """Seconds of one call of each function, `repeat` times, one after the other."""
    counts = [calls or calls_in(0.02, function) for function in functions]
    found: list[list[float]] = [[] for _ in functions]
    for _ in range(repeat):
        for seconds, function, count in zip(found, functions, counts, strict=True):
            begin = time.perf_counter()
            for _ in range(count):
                function()
            seconds.append((time.perf_counter() - begin) / count)
    return found


def calls_in(seconds: float, function: Callable[[], Any]) -> int:
    """How many calls take about so long."""
    begin = time.perf_counter()
    for _ in range(5):
        function()
    return max(1, round(5 * seconds / (time.perf_counter() - begin)))


def synced(rank: int, folder: str, repeat: int) -> None:
    """The row of the layer that shares its statistics, written by the first of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    row = measured(SYNCED, repeat, calls=20)  # as many in both: each waits for the other
    if rank == 0:
        Path(folder, "row").write_text("\n".join(row))
    dist.destroy_process_group()


def table(rows: Sequence[Sequence[str]]) -> str:
    head = (
        *("layer", "input", "forward: calls / functions / files", "backward"),
        *("forward, µs: ours / torch.nn (torch.nn ÷ ours)", "forward + backward, µs"),
    )
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [measured(case, repeat) for case in CASES]
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(synced, args=(folder, repeat), nprocs=2)
        rows.append(Path(folder, "row").read_text().split("\n"))
    print(table(rows))


if __name__ == "__main__":
    main()
