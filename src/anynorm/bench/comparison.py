"""Measure the cases: times of both sides, ratios, copies and memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.bench.cases import COPY, Case
from anynorm.bench.layers import Inputs, inputs, ours, theirs
from anynorm.bench.timing import Budget, Call, Times, alternate, ratios, spread, stopwatch, turns
from anynorm.errors import AnynormError

__all__ = ["OURS", "copying", "fresh", "kept", "measure", "resolve", "row", "sets", "step"]

OURS = "ours"
Row = dict[str, Any]
# Calls use different inputs in turn, which fill the GPU's cache this many times, so that each input
# comes from memory.
FILLED = 2
# Smaller inputs stay in the cache, as they do between the layers of a network.
LEAST_TO_ROTATE = 1 << 20


def resolve(name: str) -> str:
    """Return ``cpu`` or ``cuda:N`` for a name; raises `AnynormError` if there is no such device."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return "cpu"
    if not count or name not in ("auto", "cuda", *(f"cuda:{number}" for number in range(count))):
        told = f"there is no device {name!r}: torch sees {count} CUDA devices here"
        raise AnynormError(f"{told}. Give cpu, auto, cuda or cuda:N.")
    return name if ":" in name else "cuda:0"


def measure(
    cases: Iterable[Case], budget: Budget, device: str = "cpu", compiles: bool = False
) -> Iterator[Row]:
    """Yield a row for each case; cases that differ only in the phase share their layers.

    ``eager`` is torch.nn, ``compile`` the same compiled.  Where something fails, one row with the
    reason under ``failed`` stands for the rest of the cases that share layers.
    """
    for setup, group in itertools.groupby(cases, lambda case: case.setup):
        try:
            yield from _measured(list(group), budget, device, compiles)
        except Exception as error:
            yield {"name": setup, "failed": f"{type(error).__name__}: {error}"}
        torch.cuda.empty_cache()  # the next inputs have other sizes


def _measured(cases: list[Case], budget: Budget, device: str, compiles: bool) -> Iterator[Row]:
    given = fresh(cases[0], device)
    layers = {OURS: ours(cases[0], device), "eager": theirs(cases[0], device)}
    if compiles:
        layers["compile"] = torch.compile(layers["eager"], dynamic=False, fullgraph=True)  # type: ignore[assignment]
    memory = {name: kept(layer, given[0]) for name, layer in layers.items()}
    for case in cases:
        calls = {n: turns([step(case, layer, one) for one in given]) for n, layer in layers.items()}
        times = alternate({**calls, "copy": copying(given)}, budget, stopwatch(device))
        yield row(case, times, memory)


def fresh(case: Case, device: str) -> list[Inputs]:
    """Return inputs that take turns, the same in every run, and forget what was compiled before."""
    torch.compiler.reset()  # otherwise the ninth shape of a layer would run uncompiled
    torch.manual_seed(0)
    return [inputs(case, device) for _ in range(sets(case.nbytes, device))]


def sets(nbytes: int, device: str) -> int:
    """Return the number of inputs, by their size in bytes, that are used in turn."""
    if device == "cpu" or nbytes < LEAST_TO_ROTATE:
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(1, math.ceil(FILLED * cache / nbytes))


def step(case: Case, layer: nn.Module, given: Inputs) -> Call:
    """Return one step of a layer, which is set to training or evaluation."""
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
    """The unit of cost: copy x to memory that is already allocated."""
    pairs = [(one.x.detach().clone(), one.x.detach()) for one in given]
    return turns([lambda target=target, x=x: target.copy_(x) for target, x in pairs])  # type: ignore[misc]


def kept(layer: nn.Module, given: Inputs) -> dict[str, int]:
    """Bytes of the distinct storages kept for backward, and how many of these are x's.

    Parameters and buffers do not count, because they exist anyway.
    """
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(*given.forward)
    for own in (*layer.parameters(), *layer.buffers()):
        storages.pop(own.untyped_storage().data_ptr(), None)
    del y
    x = storages.get(given.x.untyped_storage().data_ptr())
    total = sum(storage.nbytes() for storage in storages.values())
    return {"bytes": total, "x": x.nbytes() if x else 0}


def row(case: Case, times: Times, memory: Mapping[str, Mapping[str, int]]) -> Row:
    """The result of a case; a ratio is another implementation's time divided by ours.

    `gb_per_s` are 10⁹ bytes a second, by the bytes that must move, and `share` is that of a copy's.
    """
    us = {name: spread([second * 1e6 for second in found]) for name, found in times.items()}
    copies = {name: spread(ratios(times, name, "copy")) for name in times if name != "copy"}
    others = [name for name in copies if name != OURS and OURS in copies]
    moved = {name: COPY if name == "copy" else case.moved for name in us}
    return {
        "name": case.name,
        **asdict(case),
        "values": case.values,
        "rounds": len(times["copy"]),
        "us": us,
        "copies": copies,
        "ratio": {name: spread(ratios(times, name, OURS)) for name in others},
        "share": {name: case.moved / COPY / found["median"] for name, found in copies.items()},
        "gb_per_s": {n: moved[n] * case.nbytes / us[n]["median"] / 1e3 for n in us},
        "kept": {} if case.phase == "evaluation" else memory,
        "input_bytes": case.nbytes,
        "moved_bytes": case.moved * case.nbytes,
    }
