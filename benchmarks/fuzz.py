"""A differential fuzz: cases drawn at random from printed seeds, until the time is over.

``make fuzz MINUTES=10`` or ``python -m benchmarks.fuzz --minutes 10``; a failure prints the seed,
and ``python -m benchmarks.fuzz --target layers --seed 123 --cases 1`` draws that case again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks import fuzz_layers, fuzz_plans, fuzz_records


def _records(seed: int) -> fuzz_layers.Outcome:
    if problem := fuzz_records.failure(fuzz_records.case(seed)):
        raise AssertionError(problem)
    return fuzz_layers.Outcome("a report", 0)


# What is fuzzed: functions of a seed, which raise for what should not be.  Add a line for another.
TARGETS: dict[str, Callable[[int], fuzz_layers.Outcome]] = {
    "layers": fuzz_layers.run,
    "plans": fuzz_plans.run,
    "records": _records,
}
# Layers are what there is most to try of.
_SHARES = {"layers": 20}


@dataclass
class Counts:
    """What became of the cases of one target."""

    backends: Counter[str] = field(default_factory=Counter)
    large: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def __str__(self) -> str:
        cases = sum(self.backends.values()) + len(self.failures)
        by = ", ".join(f"{name} {count}" for name, count in sorted(self.backends.items()))
        large = ", ".join(f"{name} {count}" for name, count in sorted(self.large.items()))
        on = f" (on {fuzz_layers.LARGE} values or more: {large})" if large else ""
        return f"{cases} cases: {by}{on}; failures {len(self.failures)}"


def fuzz(
    targets: Sequence[str], seed: int, *, cases: int | None = None, minutes: float | None = None
) -> dict[str, Counts]:
    """Try cases from `seed` on, so many or for so long; target after target by their shares."""
    found = {name: Counts() for name in targets}
    turns = [name for name in targets for _ in range(_SHARES.get(name, 1))]
    end = time.monotonic() + 60 * minutes if minutes is not None else None
    number = 0
    while (cases is None or number < cases) and (end is None or time.monotonic() < end):
        name = turns[number % len(turns)]
        _try(name, seed + number, found[name])
        number += 1
    return found


def _try(name: str, seed: int, counts: Counts) -> None:
    try:
        outcome = TARGETS[name](seed)
    except Exception as error:
        counts.failures.append((seed, str(error)))
        print(f"FAILURE --target {name} --seed {seed} --cases 1: {error}", flush=True)
        return
    counts.backends[outcome.backend] += 1
    if outcome.values >= fuzz_layers.LARGE:
        counts.large[outcome.backend] += 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, help="how long (5 unless --cases is given)")
    parser.add_argument("--cases", type=int, help="how many")
    parser.add_argument("--seed", type=int, help="the first seed (drawn anew if not given)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="all by default")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**9) if given.seed is None else given.seed
    minutes = 5.0 if given.minutes is None and given.cases is None else given.minutes
    print(f"seeds from {seed} on, {torch.get_num_threads()} threads", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fuzz(given.target or [*TARGETS], seed, cases=given.cases, minutes=minutes)
    for name, counts in found.items():
        print(f"{name}: {counts}")
    return 1 if any(counts.failures for counts in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
