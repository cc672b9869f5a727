"""The inputs of layers in a changed model, with their outputs in the model as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from anynorm.surgery.batches import Batch, Forward, call, device_of, each, length_of
from anynorm.surgery.modes import evaluating, without_fast_path
from anynorm.surgery.recalibrating.footprint import footprint
from anynorm.surgery.recalibrating.lockstep import Lockstep, outside, wait
from anynorm.surgery.recalibrating.room import Room, allowed
from anynorm.surgery.refitting.dense import DenseCall, DenseCalls, Layer
from anynorm.surgery.refitting.normal_equations import NormalEquations
from anynorm.surgery.refitting.readers import Reader

__all__ = [
    "Job",
    "Pair",
    "Reached",
    "Visit",
    "add_pairs",
    "all_through",
    "enough",
    "fit_together",
    "in_lockstep",
    "may_wait",
    "pairs_of",
]

_ROWS = 10  # for each feature
_PRODUCTS = 2e11  # of features, for each layer: some ten seconds of one core

Pair = tuple[DenseCall, Tensor]  # a call in the changed model, and the outputs as they were
Visit = Callable[[Reader, Iterable[Pair]], None]
Job = tuple[int, bool, Batch]  # the number of a batch, whether the changed model runs, the batch


class Reached(BaseException):
    """Ends a forward pass at the last call of a layer; no model catches it by accident."""


def _calls(
    model: nn.Module,
    reader: Reader,
    batch: Batch,
    forward: Forward | None,
    layers: Mapping[str, Layer],
) -> list[DenseCall]:
    """The calls of a layer when others are solved, from a forward pass that ends there."""
    found: list[DenseCall] = []

    def handle(name: str, dense: DenseCall) -> Tensor:
        if name == reader.name:
            found.append(dense)
            if len(found) == len(reader.uses):
                raise Reached
        return dense.run(*layers.get(name, dense.layer))

    weights = {name: model.get_parameter(name) for name in {reader.name, *layers}}
    with evaluating(model), without_fast_path(), DenseCalls(weights, handle), suppress(Reached):
        call(model, batch, forward)
    return found


def pairs_of(
    before: nn.Module,
    now: nn.Module,
    reader: Reader,
    batches: Iterable[Batch],
    forward: Forward | None,
    layers: Mapping[str, Layer],
) -> Iterator[Pair]:
    """The pairs of one layer, from one pass: each batch runs up to it in both models.

    `layers` are used in place of those of the model `now`.
    """
    for batch in each(batches):
        wanted = _calls(before, reader, batch, forward, {})
        found = _calls(now, reader, batch, forward, layers)
        for target, dense in zip(wanted, found, strict=True):
            yield dense, target.run(*target.layer)


def enough(features: int, batches: int | None, calls: int) -> float:
    """How many rows of each call are enough to fit weights for the features.

    There are so many `calls` for each batch.  Where the number of batches is not known, all rows
    are taken.  A layer of few features takes all rows too: they cost little.  Of wide layers, whose
    rows are mostly neighbours in images, ten for each feature.
    """
    if batches is None:
        return math.inf
    return max(_ROWS * features, _PRODUCTS / features**2) / (batches * calls)


def add_pairs(
    sums: NormalEquations,
    pairs: Iterable[Pair],
    features: Any = slice(None),
    most: float = math.inf,
) -> None:
    """Add what pairs say to normal equations, of some of the `features`.

    Of a call with more rows than `most`, a part that is drawn at random stands for all.
    """
    generator = torch.Generator().manual_seed(0)
    for dense, outputs in pairs:
        share = min(1.0, most * outputs.shape[dense.channel_axis] / outputs.numel())
        for rows, values in dense.pieces(outputs):
            count = rows.shape[1]
            if share < 1:
                drawn = torch.randperm(count, generator=generator)[: math.ceil(share * count)]
                rows, values = (one[:, drawn.to(one.device)] for one in (rows, values))
            sums.add(rows[..., features], values, count / rows.shape[1])


def in_lockstep(
    model: nn.Module,
    stops: Sequence[Reader],
    batches: Iterable[Batch],
    forward: Forward | None,
    layers: Mapping[str, Layer],
    visit: Visit,
    group: dist.ProcessGroup | None,
) -> None:
    """Visit the layers at `stops` in one pass: all batches wait for each other in front of each.

    Each batch goes through the model twice: as it was, and with `layers`, to which `visit` may add
    the one that it visits.  Each layer is called once on the example; a batch that calls it more
    often is seen the first time, as in :func:`pairs_of`.
    """
    places = {reader.name: place for place, reader in enumerate(stops)}
    weights = {name: model.get_parameter(name) for name in places}
    # Of the layer at each place, by the number of the batch.
    before: list[dict[int, Tensor]] = [{} for _ in stops]
    now: list[dict[int, DenseCall]] = [{} for _ in stops]

    def run(job: Job) -> None:
        number, changed, batch = job
        met = set[str]()

        def handle(name: str, dense: DenseCall) -> Tensor:
            outputs = None if changed else dense.run(*dense.layer)
            if name not in met:
                met.add(name)
                wait_at(places[name], number, dense, outputs)
            return dense.run(*layers.get(name, dense.layer)) if outputs is None else outputs

        with DenseCalls(weights, handle), suppress(Reached):
            call(model, batch, forward)

    def wait_at(place: int, number: int, dense: DenseCall, outputs: Tensor | None) -> None:
        with outside():
            if outputs is None:
                now[place][number] = dense
            else:
                before[place][number] = outputs
            wait(place)
        if place == len(stops) - 1:
            raise Reached

    def release(place: int) -> None:
        both = sorted(now[place].keys() & before[place].keys())
        visit(stops[place], [(now[place][one], before[place][one]) for one in both])
        now[place].clear()
        before[place].clear()

    with evaluating(model), without_fast_path():
        all_through(run, release, batches, group)


def all_through(
    run: Callable[[Job], None],
    release: Callable[[int], None],
    batches: Iterable[Batch],
    group: dist.ProcessGroup | None,
) -> None:
    """Run each batch twice, in the old model and in the changed one; all wait for each other."""
    jobs = (
        (number, changed, batch)
        for number, batch in enumerate(each(batches))
        for changed in (False, True)
    )
    steps = Lockstep(run, release, Room(torch.inf), group, torch.Generator(), lambda _: None)
    steps.all_through(jobs)


def fit_together(
    model: nn.Module,
    stops: Collection[Reader],
    batches: Iterable[Batch],
    forward: Forward | None,
    group: dist.ProcessGroup | None,
) -> bool:
    """Whether all batches may wait in front of the layers, twice, in half of the free memory.

    Not where a layer is called several times, since it is solved from all its calls; nor where the
    forward pass changes the model, or the number of batches is not known.
    """
    if any(len(reader.uses) > 1 for reader in stops):
        return False
    owners = {model.get_submodule(reader.name.rpartition(".")[0]) for reader in stops}
    return may_wait(model, owners, batches, forward, group)


def may_wait(
    model: nn.Module,
    layers: Collection[nn.Module],
    batches: Iterable[Batch],
    forward: Forward | None,
    group: dist.ProcessGroup | None,
) -> bool:
    """Whether all batches may wait in front of `layers`; see :func:`fit_together`."""
    number = length_of(batches)
    if number is None:
        return False
    first = next(each(batches))
    kept = footprint(model, first, forward, list(layers))
    if kept.why or kept.cached:
        return False
    room = kept.room(allowed(device_of(model), group), ())
    return not room.full(2 * number * room.needed(first))
