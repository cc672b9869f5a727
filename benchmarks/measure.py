"""One case after another: the times of all contestants, their ratios, copies and kept bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks import jax_peer
from benchmarks.cases import Case
from benchmarks.kept import kept
from benchmarks.layers import NORMALIZERS, Inputs, inputs, ours, theirs
from benchmarks.timing import Budget, Call, Times, alternate, ratios, spread

__all__ = ["PEERS", "measure", "row", "step"]

PEERS = ("eager", "compile", "jax")
OURS, COPY = "ours", "copy"
Row = dict[str, Any]


def measure(cases: Iterable[Case], peers: Sequence[str], budget: Budget) -> Iterator[Row]:
    """Yield a row for each case; those that differ in the phase alone share their layers."""
    for _, group in itertools.groupby(cases, lambda case: case.setup):
        yield from _measure_setup(list(group), peers, budget)


def _measure_setup(cases: list[Case], peers: Sequence[str], budget: Budget) -> Iterator[Row]:
    torch.compiler.reset()  # else the ninth shape of a layer would run uncompiled
    torch.manual_seed(0)
    given, layers = inputs(cases[0]), {OURS: ours(cases[0]), "eager": theirs(cases[0])}
    if "compile" in peers and any(case.compiles for case in cases):
        layers["compile"] = _compiled(layers["eager"])
    memory = {name: kept(layer, given) for name, layer in layers.items()}
    for case in cases:
        calls = {
            name: step(case, layer, given)
            for name, layer in layers.items()
            if name != "compile" or case.compiles
        }
        if "jax" in peers and case.compiles and jax_peer.serves(case):
            calls["jax"] = jax_peer.step(case, given)
        times = alternate({**calls, COPY: copying(given)}, budget)
        yield row(case, times, {} if case.phase == "evaluation" else memory)


def _compiled(layer: nn.Module) -> Any:
    return torch.compile(layer, dynamic=False, fullgraph=True)


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


def copying(given: Inputs) -> Call:
    """The unit of cost: x into memory that is there already."""
    source = given.x.detach()
    target = source.clone()
    return lambda: target.copy_(source)


def row(case: Case, times: Times, memory: dict[str, dict[str, int]]) -> Row:
    """What is written of a case; a ratio is a peer's time over ours."""
    return {
        "name": case.name,
        "normalizer": case.normalizer,
        "layout": case.layout,
        "shape": list(case.shape),
        "dtype": case.dtype,
        "fusion": case.fusion,
        "phase": case.phase,
        "values": case.values,
        "twin": NORMALIZERS[case.normalizer].twin,
        "rounds": len(times[OURS]),
        "us": {name: spread([second * 1e6 for second in found]) for name, found in times.items()},
        "copies": {name: spread(ratios(times, name, COPY)) for name in times if name != COPY},
        "ratio": {name: spread(ratios(times, name, OURS)) for name in times if name in PEERS},
        "kept": memory,
        "input_bytes": case.values * (2 if case.dtype == "bf16" else 4),
    }
