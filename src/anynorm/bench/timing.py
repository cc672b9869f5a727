"""Time several calls in alternating rounds of one run, and compute ratios and spreads."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

__all__ = ["BUDGETS", "Budget", "Call", "Stopwatch", "Times"]
__all__ += ["alternate", "events", "ratios", "spread", "stopwatch", "turns", "wall"]

Call = Callable[[], object]
# Seconds of one call, if it is called so many times.
Stopwatch = Callable[[Call, int], float]
# Seconds for one call, of each contestant in each round.
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Budget:
    """How long to measure: `seconds` in total, but at least the `fewest` rounds."""

    seconds: float = 0.4
    fewest: int = 4
    most: int = 15
    per_round: float = 0.01


BUDGETS = {"cpu": Budget(), "cuda": Budget(seconds=0.25, fewest=5, most=15)}


def wall(call: Call, count: int) -> float:
    """Time a call whose work is finished when it returns."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def events(call: Call, count: int) -> float:
    """Time calls whose work runs on the current stream.

    An extra call before them, which is not timed, keeps the GPU busy while the host queues them.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / count


def stopwatch(device: str) -> Stopwatch:
    """Return the function that times a call: by the clock, or on a GPU by events on its stream."""
    return wall if device == "cpu" else events


def alternate(calls: Mapping[str, Call], budget: Budget, seconds: Stopwatch = wall) -> Times:
    """Time all calls in rounds A B C, C B A, …, so that drift affects all of them equally."""
    counts = {name: _calls_in(budget.per_round, call, seconds) for name, call in calls.items()}
    times: Times = {name: [] for name in calls}
    order, start = list(calls), time.perf_counter()
    for done in range(budget.most):
        if done >= budget.fewest and time.perf_counter() - start > budget.seconds:
            break
        for name in order:
            times[name].append(_one_round(calls[name], counts[name], seconds))
        order.reverse()
    return times


def _calls_in(duration: float, call: Call, seconds: Stopwatch) -> int:
    seconds(call, 1)  # the first call compiles, allocates and fills caches
    return max(1, int(duration / seconds(call, 1)))


def _one_round(call: Call, count: int, seconds: Stopwatch) -> float:
    """Seconds of one call; where they are short, the first finds the other's data in the cache."""
    if count > 1:
        call()
    return seconds(call, count)


def turns(calls: Sequence[Call]) -> Call:
    """Return one call that runs the given calls in turn."""
    ring = itertools.cycle(calls)
    return calls[0] if len(calls) == 1 else lambda: next(ring)()


def ratios(times: Times, name: str, base: str) -> list[float]:
    """Return the time of `name` divided by that of `base`, round by round."""
    return [one / other for one, other in zip(times[name], times[base], strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}
