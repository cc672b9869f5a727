"""One case after another, with contestants that may fail: those are left out, with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from anynorm.bench.cases import Case
from anynorm.bench.comparison import OURS, Row, copying, fresh, kept, step
from anynorm.bench.comparison import row as common
from anynorm.bench.layers import Inputs
from anynorm.bench.timing import Budget, Call, Times, alternate, stopwatch, turns
from benchmarks.hardware import peak
from benchmarks.speed import jax_peer
from benchmarks.speed.contestants import Attempts, built
from benchmarks.speed.normalizers import TWINS
from benchmarks.speed.peers import PEERS

__all__ = ["measure", "row"]


def measure(
    cases: Iterable[Case], peers: Sequence[str], budget: Budget, device: str = "cpu"
) -> Iterator[Row]:
    """Yield a row for each case; those that differ in the phase alone share their layers.

    Contestants that fail are missing in it, and their reasons are in ``failed``.  Raises
    `BrokenDeviceError` where a failure left the device unusable.
    """
    for _, group in itertools.groupby(cases, lambda case: case.setup):
        yield from _measure_setup(list(group), peers, budget, device)
        torch.cuda.empty_cache()


def _measure_setup(
    cases: list[Case], peers: Sequence[str], budget: Budget, device: str
) -> Iterator[Row]:
    given, attempt = fresh(cases[0], device), Attempts(device)
    layers = built(cases, peers, given[0], attempt)
    memory = _memory(layers, given[0], attempt)
    for case in cases:
        each = Attempts(device)
        calls, peaks = _ready(_calls(case, layers, peers, given, each), each)
        times = alternate({**calls, "copy": copying(given)}, budget, stopwatch(device))
        found = row(case, times, memory, peaks)
        yield {**found, "failed": {**attempt.failed, **each.failed}}


def _memory(
    layers: Mapping[str, nn.Module], given: Inputs, attempt: Attempts
) -> dict[str, dict[str, int]]:
    found = {name: attempt(name, partial(kept, layer, given)) for name, layer in layers.items()}
    return {name: memory for name, memory in found.items() if memory is not None}


def _calls(
    case: Case,
    layers: Mapping[str, nn.Module],
    peers: Sequence[str],
    given: Sequence[Inputs],
    attempt: Attempts,
) -> dict[str, Call | None]:
    calls: dict[str, Call | None] = {
        name: turns([step(case, layer, one) for one in given])
        for name, layer in layers.items()
        if name == OURS or PEERS[name].serves(case)
    }
    if "jax" in peers and jax_peer.serves(case):
        calls["jax"] = attempt("jax", lambda: jax_peer.step(case, given[0]))
    return calls


def _ready(
    calls: Mapping[str, Call | None], attempt: Attempts
) -> tuple[dict[str, Call], dict[str, int]]:
    """The calls that do not fail, and on a GPU the memory that each needs."""
    ready: dict[str, Call] = {}
    peaks: dict[str, int] = {}
    for name, call in calls.items():
        if call is not None and attempt(name, partial(_runs, call)):
            ready[name] = call
            most = peak(call, attempt.device)
            peaks |= {} if most is None else {name: most}
    return ready, peaks


def _runs(call: Call) -> bool:
    call()
    return True


def row(
    case: Case,
    times: Times,
    memory: Mapping[str, Mapping[str, int]],
    peaks: Mapping[str, int] | None = None,
) -> Row:
    """What is written of a case: that of `anynorm.bench`, torch's twin, a GPU's memory."""
    found = common(case, times, memory)
    return {**found, "twin": case.normalizer in TWINS, "peak_bytes": dict(peaks or {})}
