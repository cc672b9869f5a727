"""How many values a statistic has, and whether samples depend on others: 5, 6, 15, 21, 22."""

from __future__ import annotations

from torch import distributed as dist
from torch import nn

from anynorm.doctor.case import CannotRunError, Case, Found, Numbers, Outcome
from anynorm.doctor.comparison import (
    apart,
    first_apart,
    in_double,
    matched,
    run,
)
from anynorm.doctor.record import Record
from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, part_of, samples_of
from anynorm.surgery.streaming_stats import in_group
from anynorm.surgery.transaction import copied

__all__ = ["accumulated", "companions", "few_in_group", "last_batch", "small_batch"]

FEW = 16
SAMPLES = 4  # tried alone
TOGETHER = 8
AGREES = 1e-3


def small_batch(case: Case) -> Outcome:
    """Check 5."""
    for record, values in _small(case):
        yield Found(
            record.norm.name,
            f"in training with batches of this size, each channel's μ and σ are of {values} values",
            {"values": values, "input": str(record.shape)},
            FEW / max(values, 1),
        )


def accumulated(case: Case) -> Outcome:
    """Check 15."""
    for record, values in _small(case) if case.accumulation > 1 else ():
        numbers: Numbers = {
            "values": values,
            "accumulated batches": case.accumulation,
            "values behind a gradient": values * case.accumulation,
        }
        message = (
            f"gradients of {case.accumulation} batches are accumulated, but μ and σ are of the "
            f"{values} values of each single batch"
        )
        yield Found(record.norm.name, message, numbers, FEW / max(values, 1))


def _small(case: Case) -> list[tuple[Record, int]]:
    found = [(record, record.values * _ranks(record)) for record in case.batch_like]
    return [(record, values) for record, values in found if values < FEW]


def _ranks(record: Record) -> int:
    """How many processes share statistics."""
    module = record.norm.layer
    torchs = isinstance(module, nn.SyncBatchNorm)
    sync = module.process_group or True if torchs else getattr(module, "sync", None)
    if sync is None or not in_group():
        return 1
    if isinstance(sync, int) and sync is not True:
        return sync
    group = sync.get_group() if hasattr(sync, "get_group") else sync
    return dist.get_world_size(None if group is True else group)


def last_batch(case: Case) -> Outcome:
    """Check 6."""
    last = _last(case)
    if last != 1 or not case.batch_like:
        return
    record = min(case.batch_like, key=lambda r: r.values * _ranks(r))
    samples, ranks = max(case.measured.sizes), _ranks(record)
    own = record.fewest if 1 in case.measured.sizes else record.values // max(samples, 1)
    values = max(own, 1) * ranks
    numbers: Numbers = {"last batch": 1, "batch": samples, "values per channel": values}
    if case.loader is not None:
        numbers |= {"samples": case.loader.samples, "batch": case.loader.batch}
    severity = "error" if values <= 1 else "warning"
    message = _of_one_sample(values, ranks)
    yield Found(record.norm.name, message, numbers, float(samples), severity)


def _of_one_sample(values: int, ranks: int) -> str:
    where = f" on each of {ranks} ranks" if ranks > 1 else ""
    channel = f"the last batch has one sample{where}, so each channel has {values} value"
    if values <= 1:
        return f"{channel}: training raises an error"
    whose = "those samples'" if ranks > 1 else "that sample's"
    return f"{channel}s: its statistics are {whose}"


def _last(case: Case) -> int:
    """The size of the last batch of an epoch; 0 if there is no smaller one."""
    if case.loader is not None:
        samples, batch, drops = case.loader
        return 0 if drops or batch == 1 else samples % batch
    sizes = case.measured.sizes
    return sizes[-1] if len(sizes) > 1 and sizes[-1] < max(sizes) else 0


def few_in_group(case: Case) -> Outcome:
    """Check 22."""
    for record in case.measured.records:
        if record.norm.constant or record in case.batch_like or record.fewest >= FEW:
            continue
        values = record.fewest
        yield Found(
            record.norm.name,
            f"each μ and σ is taken over {values} value{'s' if values > 1 else ''}"
            + (", so the layer outputs β for every input" if values < 2 else ""),
            {"values": values, "input": str(record.shape), "kind": record.norm.family},
            FEW / max(values, 1),
            "error" if values < 2 else "warning",
        )


def companions(case: Case) -> Outcome:
    """Check 21."""
    if samples_of(case.example, case.batch_axis) < 2:
        raise CannotRunError("a first batch of two samples or more")
    try:
        index, away, layer = _alone(case, case.batch_axis)
        # If the axis of the samples is unknown, it may be axis 1, as in sequence models. Along the
        # axis of the samples the outputs are independent; along time they are not.
        if away > AGREES and case.axis is None:
            other = _tried(case, 1)
            away = away if other is None else min(away, other)
    except CannotRunError:
        raise
    except AnynormError as error:
        raise CannotRunError(f"a model that can be called on one sample: {error}") from error
    if away > AGREES:
        message = f"the output for sample {index} alone differs by {away:.2g} from that in a batch"
        samples = min(samples_of(case.example, case.batch_axis), TOGETHER)
        numbers: Numbers = {"sample": index, "batch": samples, "relative difference": away}
        yield Found(layer, message, numbers, away / AGREES)


def _tried(case: Case, axis: int) -> float | None:
    """How much a sample on that axis depends on the others; None if the axis has no samples."""
    if samples_of(case.example, axis) < 2:
        return None
    try:
        return _alone(case, axis)[1]
    except AnynormError:
        return None


def _alone(case: Case, axis: int) -> tuple[int, float, str]:
    """The sample that differs most when it is alone, by how much, and the layer that causes it."""
    batch = part_of(case.example, 0, min(samples_of(case.example, axis), TOGETHER), axis)
    worst = _worst_alone(case, case.model, batch, axis)
    # In float32 rounding may change a choice, such as which boxes are the best.
    if worst[1] > AGREES and not worst[2]:
        in_float64 = _worst_alone(case, copied(case.model).double(), in_double(batch), axis)
        worst = (worst[0], in_float64[1], worst[2])
    return worst


def _worst_alone(case: Case, model: nn.Module, batch: Batch, axis: int) -> tuple[int, float, str]:
    names = case.layers
    samples = samples_of(batch, axis)
    together = run(model, batch, names, case.forward)
    found = []
    for index in range(min(samples, SAMPLES)):
        alone = run(model, part_of(batch, index, index + 1, axis), names, case.forward)
        one, part = matched(alone, together, index, samples)
        if not one.outputs:
            raise CannotRunError("an output with an axis of samples")
        found.append((index, apart(one, part), first_apart(one, part, AGREES)))
    return max(found, key=lambda item: item[1])
