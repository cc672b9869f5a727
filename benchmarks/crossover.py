"""Find the sizes from which our kernels are faster than torch's operators, in training.

    python -m benchmarks.crossover [--only 'batch.*last'] [--threads 2]

The same layer runs on both paths in alternation: the table of `anynorm.ops.crossover` is replaced
by one that always or never takes the kernels.  A size counts as won if both the forward pass and
forward + backward are faster, and the crossover is the smallest size from which on all are won.
Prints the table as it stands in that file, with the least lengths of runs that are in it already.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from rich.console import Console

from anynorm import kernels
from anynorm.bench.cases import TRAINING, Case, Shape
from anynorm.bench.layers import inputs, ours
from anynorm.bench.measure import step
from anynorm.bench.settings import SETTINGS, adopt
from anynorm.bench.timing import Budget, Call, alternate, ratios, spread
from anynorm.ops import crossover
from anynorm.ops.crossover import Crossover

__all__ = ["entry", "forced", "main", "shape", "smallest"]

Key = tuple[str, str]
SIZES = tuple(1 << power for power in range(10, 23))
ALWAYS, NEVER = 1, 1 << 62
# A median so close below 1 is noise, where smaller and larger sizes are won.
TIE = 0.98
BUDGET = Budget(seconds=0.25, fewest=5, most=25, per_round=0.004)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a regular expression for normalizer/layout")
    parser.add_argument("--threads", type=int, help="by default as many as torch takes")
    parser.add_argument("--allocator", choices=SETTINGS, default="kept")
    options = parser.parse_args()
    if not kernels.available():
        raise SystemExit(f"There are no kernels to measure: {kernels.why_not()}.")
    adopt(options.allocator)
    if options.threads:
        torch.set_num_threads(options.threads)
    keys = [key for key in crossover.TABLE if re.search(options.only, "/".join(key))]
    lines = [_measured(Console(soft_wrap=True, highlight=False), key) for key in keys]
    print("TABLE: dict[tuple[str, str], Crossover] = {", *lines, "}", sep="\n")


def _measured(console: Console, key: Key) -> str:
    """Measure all sizes of a row of the table; return its line in the source."""
    found, run = [], crossover.TABLE[key].run
    for fusion in ("plain", "relu"):
        won = {size: _won(key, size, fusion) for size in SIZES}
        shown = "  ".join(f"2^{size.bit_length() - 1} {ratio:.2f}" for size, ratio in won.items())
        console.print(f"{'/'.join(key)} {fusion}: {shown}")
        found.append(smallest(won))
    return entry(key, Crossover(*found, run))


def _won(key: Key, size: int, fusion: str) -> float:
    """Torch's time over the kernels', of the two phases the lesser."""
    case = _case(key, size, fusion)
    torch.manual_seed(0)
    layer, given = ours(case), inputs(case)
    medians = []
    for phase in TRAINING:
        call = step(replace(case, phase=phase), layer, given)
        calls = {"ours": forced(key, ALWAYS, call), "torch": forced(key, NEVER, call)}
        medians.append(spread(ratios(alternate(calls, BUDGET), "torch", "ours"))["median"])
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
    side = 8 if size < 1 << 16 else 16 if size < 1 << 19 else 32
    return 8, size // (8 * side * side), side, side


def forced(key: Key, least: int, call: Call) -> Call:
    """`call` with another crossover; setting it takes less than a microsecond on both paths."""
    row = Crossover(least, least)

    def run() -> None:
        crossover.TABLE[key] = row
        crossover.SMALLEST[key[0]] = row
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
