"""One case after another: the times of all contestants, their ratios, copies and memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from anynorm.bench import devices, jax_peer
from anynorm.bench.cases import Case
from anynorm.bench.contestants import OURS, Attempts, built
from anynorm.bench.kept import kept
from anynorm.bench.layers import NORMALIZERS, Inputs, inputs
from anynorm.bench.peers import PEERS
from anynorm.bench.timing import Budget, Call, Times, alternate, ratios, spread, turns
from anynorm.bench.traffic import COPY, moved

__all__ = ["measure", "row", "step"]

Row = dict[str, Any]


def measure(
    cases: Iterable[Case], peers: Sequence[str], budget: Budget, device: str = "cpu"
) -> Iterator[Row]:
    """Yield a row for each case; those that differ in the phase alone share their layers.

    Contestants that fail are missing in it, and their reasons are in ``failed``.  Raises
    `BrokenDeviceError` where a failure left the device unusable.
    """
    for _, group in itertools.groupby(cases, lambda case: case.setup):
        yield from _measure_setup(list(group), peers, budget, device)
        devices.free(device)


def _measure_setup(
    cases: list[Case], peers: Sequence[str], budget: Budget, device: str
) -> Iterator[Row]:
    torch.compiler.reset()  # else the ninth shape of a layer would run uncompiled
    torch.manual_seed(0)
    attempt = Attempts(device)
    count = devices.sets(cases[0].nbytes, device)
    given = [inputs(cases[0], device) for _ in range(count)]
    layers = built(cases, peers, given[0], attempt)
    memory = _memory(layers, given[0], attempt)
    for case in cases:
        each = Attempts(device)
        calls, peaks = _ready(_calls(case, layers, peers, given, each), each)
        times = alternate({**calls, "copy": copying(given)}, budget, devices.stopwatch(device))
        found = row(case, times, {} if case.phase == "evaluation" else memory, peaks)
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
            most = devices.peak(call, attempt.device)
            peaks |= {} if most is None else {name: most}
    return ready, peaks


def _runs(call: Call) -> bool:
    call()
    return True


def step(case: Case, layer: nn.Module, given: Inputs) -> Call:
    """What is timed of a torch layer, which is set to training or evaluation."""
    layer.train(case.phase != "evaluation")
    wanted = (*given.forward, *layer.parameters())

    def both() -> None:
        torch.autograd.grad(layer(*given.forward), wanted, given.dy)

    def evaluate() -> None:
        with torch.no_grad():
            layer(*given.forward)

    forward: Call = lambda: layer(*given.forward)  # noqa: E731
    return {"forward": forward, "both": both, "evaluation": evaluate}[case.phase]


def copying(given: Sequence[Inputs]) -> Call:
    """The unit of cost: x into memory that is there already."""
    pairs = [(one.x.detach().clone(), one.x.detach()) for one in given]
    return turns([lambda target=target, x=x: target.copy_(x) for target, x in pairs])  # type: ignore[misc]


def row(
    case: Case,
    times: Times,
    memory: Mapping[str, Mapping[str, int]],
    peaks: Mapping[str, int] | None = None,
) -> Row:
    """What is written of a case; a ratio is a peer's time over ours.

    `share` is that of the measured bandwidth of a copy.
    """
    us = {name: spread([second * 1e6 for second in found]) for name, found in times.items()}
    copies = {name: spread(ratios(times, name, "copy")) for name in times if name != "copy"}
    against = [name for name in times if name in PEERS and OURS in times]
    return {
        "name": case.name,
        **case.described,
        "values": case.values,
        "twin": NORMALIZERS[case.normalizer].twin,
        "rounds": len(times["copy"]),
        "us": us,
        "copies": copies,
        "ratio": {name: spread(ratios(times, name, OURS)) for name in against},
        "share": {name: moved(case) / COPY / found["median"] for name, found in copies.items()},
        "gb_per_s": _bandwidths(case, us),
        "kept": memory,
        "peak_bytes": dict(peaks or {}),
        "input_bytes": case.nbytes,
        "moved_bytes": moved(case) * case.nbytes,
    }


def _bandwidths(case: Case, us: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """10⁹ bytes a second, by the bytes that must move."""
    tensors = {name: COPY if name == "copy" else moved(case) for name in us}
    return {name: tensors[name] * case.nbytes / us[name]["median"] / 1e3 for name in us}
