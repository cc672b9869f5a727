"""The measurements that need data, all in one pass over the batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import distributed as dist
from torch import nn

from anynorm.doctor.drift import tested
from anynorm.doctor.dropped import Dropped
from anynorm.doctor.losses import Loss, Losses, target_of
from anynorm.doctor.probe import Probe
from anynorm.doctor.record import Record
from anynorm.surgery.batches import Batch, Forward, each, samples_of
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.recognized import Normalizers, find_on, of_calls
from anynorm.surgery.streaming_stats import in_group

__all__ = ["Survey", "Wanted", "records_on", "survey"]


@dataclass(frozen=True)
class Wanted:
    """What of the pass is asked for: each costs further calls of a model for each batch."""

    losses: bool = True
    dropout: bool = True


@dataclass
class Survey:
    """What one pass over the batches showed."""

    found: Normalizers  # the normalizers, also those that the first batch showed
    norms: list[Normalizer]  # the layers, and the functions that have an equal layer
    records: list[Record]  # in the order of the forward pass
    losses: Losses
    dropped: Dropped
    averaged: list[Record] | None = None
    sizes: list[int] = field(default_factory=list)  # of the batches, in samples
    example: Batch = None  # the first batch
    axis: int | None = None  # that of samples, where it is known


def survey(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    averaged: nn.Module | None,
    loss: Loss | None,
    forward: Forward | None,
    group: dist.ProcessGroup | None,
    wanted: Wanted,
    batch_axis: int | None = None,
) -> Survey:
    """Go through the batches once, whatever they are: a generator has no second pass."""
    probe: Probe | None = None
    others = [Probe(averaged, forward)] if averaged is not None else []
    found = Survey(Normalizers(), [], [], Losses(loss), Dropped(model, forward), axis=batch_axis)
    for batch in each(batches):
        if probe is None:
            found.found = find_on(model, batch, forward)
            found.norms = [*found.found.norms, *of_calls(model, found.found.functional)]
            probe = Probe(model, forward, norms=found.norms)
            found.axis = _axis_of_labels(batch) if batch_axis is None else batch_axis
        for watching in (probe, *others, *found.dropped.probes.values()):
            watching.axis = found.axis or 0
        _take(found, batch, probe, others, wanted)
    found.records = [] if probe is None else _ordered(probe, group)
    found.averaged = _ordered(others[0], group) if others else None
    return found


def _axis_of_labels(batch: Batch) -> int | None:
    """The axis of the input that is as long as the labels; None where several are, or none is."""
    target = target_of(batch)
    if target is None or not target.dim():
        return None
    fitting = [axis for axis in (0, 1) if samples_of(batch, axis) == len(target)]
    return fitting[0] if len(fitting) == 1 else None


def _take(found: Survey, batch: Batch, probe: Probe, others: list[Probe], wanted: Wanted) -> None:
    if not found.sizes:
        found.example = batch
    found.sizes.append(samples_of(batch, found.axis or 0))
    with probe:
        output = probe.run(batch)
    for other in others:
        with other:
            other.run(batch)
    if wanted.losses and found.sizes[-1] == found.sizes[0]:
        found.losses.see(probe, batch, output)
    if wanted.dropout:
        found.dropped.see(batch)


def records_on(
    model: nn.Module,
    batches: Iterable[Batch],
    forward: Forward | None,
    group: dist.ProcessGroup | None,
    batch_axis: int | None = None,
) -> list[Record]:
    """What reaches the layers on other batches."""
    with Probe(model, forward, batch_axis or 0) as probe:
        for batch in each(batches):
            probe.run(batch)
    return _ordered(probe, group)


def _ordered(probe: Probe, group: dist.ProcessGroup | None) -> list[Record]:
    """The records in the order of the forward pass, of all ranks where a process group runs."""
    if in_group():
        for record in probe.records:
            if tested(record):
                record.over_ranks(group)
    return probe.in_order()
