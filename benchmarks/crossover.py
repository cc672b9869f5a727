"""Find the sizes from which our kernels are faster than torch's operators, in training.

    python -m benchmarks.crossover [--device cuda] [--only 'batch.*last'] [--threads 2]

The same layer runs on both paths in alternation: the device's table in
`anynorm.ops.dispatch_thresholds` is replaced by one that always or never takes the kernels.  A size
counts as won if both the forward pass and forward + backward are faster, and the crossover is the
smallest size from which on all are won.  Prints the table as it stands in that file, with the least
lengths of runs that are in it already.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from rich.console import Console

from anynorm import kernels
from anynorm.bench.cases import TRAINING, Case, Shape
from anynorm.bench.comparison import resolve, step
from anynorm.bench.layers import inputs, ours
from anynorm.bench.timing import Budget, Call, alternate, ratios, spread, stopwatch
from anynorm.errors import AnynormError
from anynorm.ops import dispatch_thresholds
from anynorm.ops.dispatch_thresholds import Crossover
from benchmarks.process import SETTINGS, adopt

__all__ = ["Place", "entry", "forced", "main", "place", "shape", "smallest"]

Key = tuple[str, str]
SIZES = tuple(1 << power for power in range(10, 23))
GPU_SIZES = tuple(1 << power for power in range(10, 27))
ALWAYS, NEVER = 1, 1 << 62
# A median so close below 1 is noise, where smaller and larger sizes are won.
TIE = 0.98
BUDGET = Budget(seconds=0.25, fewest=5, most=25, per_round=0.004)


class Place(NamedTuple):
    """Where calls run, and what stands in the source for it: by layout, and the least of all."""

    device: str
    name: str
    table: dict[Key, Crossover]
    least: dict[str, Crossover]
    sizes: tuple[int, ...]


def main() -> None:
    options = _options()
    try:
        where = place(options.device)
        allocator = options.allocator if where.device == "cpu" else "default"
        adopt(where.device, allocator, options.threads)
    except AnynormError as error:
        raise SystemExit(str(error)) from None
    keys = [key for key in where.table if re.search(options.only, "/".join(key))]
    console = Console(soft_wrap=True, highlight=False)
    lines = [_measured(console, where, key) for key in keys]
    print(f"{where.name}: dict[tuple[str, str], Crossover] = {{", *lines, "}", sep="\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--only", default="", help="a regular expression for normalizer/layout")
    parser.add_argument("--threads", type=int, help="by default as many as torch takes")
    parser.add_argument("--allocator", choices=SETTINGS, default="kept", help="that of the CPU")
    return parser.parse_args()


def place(name: str) -> Place:
    """Return the device of that name; raises `AnynormError` if it, or its kernels, are not there.

    >>> place("cpu").name
    'TABLE'
    """
    device = resolve(name)
    found = kernels if device == "cpu" else kernels.cuda
    if not found.available():
        raise AnynormError(f"There are no kernels to measure: {found.why_not()}.")
    if device == "cpu":
        return Place(
            device, "TABLE", dispatch_thresholds.TABLE, dispatch_thresholds.SMALLEST, SIZES
        )
    return Place(
        device,
        "GPU_TABLE",
        dispatch_thresholds.GPU_TABLE,
        dispatch_thresholds.GPU_SMALLEST,
        GPU_SIZES,
    )


def _measured(console: Console, where: Place, key: Key) -> str:
    """Measure all sizes of a row of the table; return its line in the source."""
    found, run = [], where.table[key].run
    for fusion in ("plain", "relu"):
        won = {size: _won(where, key, size, fusion) for size in where.sizes}
        shown = "  ".join(f"2^{size.bit_length() - 1} {ratio:.2f}" for size, ratio in won.items())
        console.print(f"{'/'.join(key)} {fusion}: {shown}")
        found.append(smallest(won))
    return entry(key, Crossover(*found, run))


def _won(where: Place, key: Key, size: int, fusion: str) -> float:
    """Torch's time over the kernels', of the two phases the lesser."""
    case = _case(key, size, fusion)
    torch.manual_seed(0)
    layer, given = ours(case, where.device), inputs(case, where.device)
    seconds, medians = stopwatch(where.device), []
    for phase in TRAINING:
        call = step(replace(case, phase=phase), layer, given)
        calls = {
            "ours": forced(where, key, ALWAYS, call),
            "torch": forced(where, key, NEVER, call),
        }
        times = alternate(calls, BUDGET, seconds)
        medians.append(spread(ratios(times, "torch", "ours"))["median"])
    torch.cuda.empty_cache()
    return min(medians)


def _case(key: Key, size: int, fusion: str) -> Case:
    normalizer, layout = key
    name = "batch1d" if key == ("batch", "rows") else normalizer
    memory = "channels_last" if layout == "channels last" else "contiguous"
    return Case(name, memory, shape(layout, size), "fp32", fusion, "both")


def shape(layout: str, size: int) -> Shape:
    """An input of `size` values: rows of 128 features, or images that grow with their channels."""
    if layout == "rows":
        return size // 128, 128
    side = 8 if size < 1 << 16 else 16 if size < 1 << 19 else 32 if size < 1 << 23 else 64
    return 8, size // (8 * side * side), side, side


def forced(where: Place, key: Key, least: int, call: Call) -> Call:
    """`call` with another crossover; setting it takes less than a microsecond on both paths."""
    row = Crossover(least, least)

    def run() -> None:
        where.table[key] = row
        where.least[key[0]] = row
        call()

    return run


def smallest(won: Mapping[int, float]) -> int:
    """Return the smallest size from which on no larger one is lost.

    >>> smallest({1: 1.2, 2: 0.8, 4: 1.1, 8: 0.99, 16: 1.5})
    4
    """
    found = NEVER
    for size, ratio in sorted(won.items(), reverse=True):
        if ratio < TIE:
            return found
        if ratio >= 1:
            found = size
    return ALWAYS if found == min(won) else found


def entry(key: Key, row: Crossover) -> str:
    """Return a line of the table as it stands in the source.

    >>> entry(("batch", "rows"), Crossover(1 << 17))
    '    ("batch", "rows"): Crossover(1 << 17),'
    """
    numbers = list(map(_power, row))
    while numbers[-1] == "1" and len(numbers) > 1:  # what is left out is 1
        numbers.pop()
    return f'    ("{key[0]}", "{key[1]}"): Crossover({", ".join(numbers)}),'


def _power(size: int) -> str:
    return str(size) if size < 1 << 10 else f"1 << {int(math.log2(size))}"


if __name__ == "__main__":
    main()
