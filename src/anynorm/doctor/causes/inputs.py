"""Input preprocessing: find a change of the input with which the first layer's statistics fit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from anynorm.doctor.causes.evidence import Evidence
from anynorm.doctor.causes.score import Score, better, distance, worse
from anynorm.doctor.causes.ward import Trial, Ward
from anynorm.doctor.drift import measurable
from anynorm.doctor.finding import Finding
from anynorm.doctor.geometry import double
from anynorm.doctor.probe import Probe
from anynorm.doctor.record import Record
from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch

__all__ = ["preprocessing"]

FITTED_ON = 4  # batches
# The part of the first layer's distance that is left, at most:
FITS = 0.35  # for any candidate
EXACT = 0.1  # if a few numbers fit many channels, which is not chance
SURE = 0.02  # if a usual mistake fits many channels, even if something else is wrong too
NEAR = 0.03  # σ, and share of the distance: fits that differ by less are equally good
LEAST = 0.1  # σ by which the first layer must be off
SIZE = math.log(1.25)  # the smallest change of scale that is named
MOVED = 0.1  # the smallest shift, in σ of the input
ROUND = 0.12  # a factor this close to a usual one (in logarithm) is taken to be the usual one
ALIKE = 0.01  # of usual factors that fit about equally well, the more frequent one is chosen
TINY = 1e-30
SEEN = 0.3  # σ: if the means over channels are smaller, they do not determine a scale
CHANNELS = 3  # with fewer channels a fit may be chance
# Factors that come from 8-bit images, the more frequent first, and powers of two.
USUAL = (255.0, 256.0, 127.5, 128.0, 100.0, 64.0, 32.0, 16.0, 10.0, 8.0, 4.0, 2.0)
LARGE = 8  # the first 8 are so large that they do not fit by chance
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Candidate:
    """A change of the input, in words and as code."""

    change: _Change
    words: str
    code: str
    scales: bool = False  # only a factor
    usual: bool = False  # a frequent mistake


def preprocessing(ward: Ward) -> Evidence | None:
    """The input differs from that of training by a scale, a shift, or the order of channels."""
    first = _first(ward)
    batches = ward.batches[:FITTED_ON]
    if first is None or not batches or _input_of(batches[0]) is None:
        return None
    record, findings = first
    found = ward.once("preprocessing", lambda: _search(ward, record))
    return None if found is None else _evidence(ward, findings, found, record)


@dataclass(frozen=True)
class _Search:
    """The change of the input that fits, the changed batches, and the trial on all of them."""

    candidate: _Candidate
    batches: list[Batch]
    trial: Trial


def _search(ward: Ward, record: Record) -> _Search | None:
    batches, layer = ward.batches[:FITTED_ON], record.norm.name
    before = _off(ward, record, batches, _same)
    if before < LEAST:
        return None
    tried = list(_tried(ward, record, batches, before))
    if not tried:
        return None
    candidate = _best(tried, layer, before)
    batches = [_changed(batch, candidate.change) for batch in ward.batches]
    trial = Trial(ward.before, ward.score(ward.model, batches))
    now = next(after.off[layer] for one, after in tried if one is candidate)
    # If there is a second fault the loss may stay the same, but it must not rise.
    sure = _is_sure(candidate, record, now, before) and not worse(trial.before, trial.after)
    if trial.before.loss is not None and not (sure or better(trial.before, trial.after)):
        return None
    return _Search(candidate, batches, trial)


def _is_sure(candidate: _Candidate, record: Record, now: float, off: float) -> bool:
    """Whether the first layer alone is enough evidence of a usual mistake."""
    return candidate.usual and now <= SURE * off and record.norm.channels > 2 * CHANNELS


def _best(tried: Sequence[tuple[_Candidate, Score]], layer: str, off: float) -> _Candidate:
    """The candidate with the lowest loss or, without labels, the best fit of the first layer.

    Candidates are in order, the simplest first; of equally good ones the first is chosen.
    """
    losses = [after for _, after in tried if after.loss is not None]
    if losses:
        lowest = min(losses, key=lambda after: after.loss or 0.0)
        tried = [(one, after) for one, after in tried if not better(after, lowest)]
    near = min(after.off[layer] for _, after in tried) + NEAR + NEAR * off
    return next(one for one, after in tried if after.off[layer] <= near)


def _first(ward: Ward) -> tuple[Record, list[Finding]] | None:
    """The first layer that keeps statistics, if they are off, and the findings on it."""
    if ward.case.survey is None or not ward.case.drifts:
        return None
    record = ward.case.drifts[0].record
    found = [one for one in ward.of(1, 2) if one.layer == record.norm.name]
    return (record, found) if found else None


def _tried(
    ward: Ward, record: Record, batches: Sequence[Batch], off: float
) -> Iterator[tuple[_Candidate, Score]]:
    """Yield the candidates with which the statistics fit; the first layer's were `off`.

    Most candidates do not fit the first layer, and only the start of the forward pass is needed to
    see this.
    """
    before: Score | None = None
    for candidate in _candidates(ward, record, batches):
        now = _off(ward, record, batches, candidate.change)
        if now > FITS * off:
            continue
        before = before or ward.score(ward.model, batches)
        try:
            after = ward.score(ward.model, [_changed(b, candidate.change) for b in batches])
        except AnynormError:
            continue
        # If a change fits the first layer by chance, the later layers stay off.
        exact = now <= EXACT * off and record.norm.channels > 2 * CHANNELS
        likely = (candidate.usual or exact) and after.mean_off < before.mean_off
        likely = likely or _is_sure(candidate, record, now, off)
        if likely or _all_restored(before, after) or _beats_recomputing(ward, before, after):
            yield candidate, after


def _off(ward: Ward, record: Record, batches: Sequence[Batch], change: _Change) -> float:
    """By how many σ the statistics of the first layer are off with the changed input."""
    found = _first_record(ward, record, batches, change)
    return math.inf if found is None else distance(found)


def _all_restored(before: Score, after: Score) -> bool:
    trial = Trial(before, after)
    return all(trial.restored(layer) for layer, off in before.off.items() if off > LEAST)


def _beats_recomputing(ward: Ward, before: Score, after: Score) -> bool:
    """Whether the loss falls, and falls further than by recomputing the statistics."""
    trial = ward.recalibrated()
    comparable = not (trial.reason or trial.refusal)
    return comparable and better(before, after) and better(trial.after, after)


def _candidates(ward: Ward, record: Record, batches: Sequence[Batch]) -> Iterator[_Candidate]:
    shape = _shape(batches)
    if len(shape) > 2 and shape[1] == 3:
        yield from _orders()
    yield from _fitted(ward, record, batches)
    if len(shape) > 1 and shape[1] <= 4:
        yield _standardised(batches)
    if len(shape) == 4 and shape[1] == 3:
        yield from _imagenet()


def _orders() -> Iterator[_Candidate]:
    """The channels in another order, the reverse one first (RGB and BGR)."""
    orders = sorted(itertools.permutations(range(3)), key=lambda order: order != (2, 1, 0))
    for order in orders:
        if order != (0, 1, 2):
            reverse = order == (2, 1, 0)
            words = "has its channels in "
            words += "reverse order (RGB, BGR)" if reverse else "another order"
            index = torch.tensor(order)
            code = "x.flip(1)" if reverse else f"x[:, {list(order)}]"
            yield _Candidate(lambda x, i=index: x[:, i.to(x.device)], words, code, usual=reverse)  # type: ignore[misc]


def _fitted(ward: Ward, record: Record, batches: Sequence[Batch]) -> Iterator[_Candidate]:
    """One factor, and one factor with one shift, that fit the first layer's mean and variance.

    The layers before it are mostly linear. Then its mean and variance for any factor and shift
    follow from those for the input, for zeros and for ones.
    """
    found = [_first_record(ward, record, batches, change) for change in (_same, _zeros, _ones)]
    if any(one is None for one in found):
        return
    values = [one.inputs.values for one in found if one is not None]
    (mean, zero, one), variance = (one.mean for one in values), values[0].variance
    module = ward.model.get_submodule(record.norm.name)
    running_mean = double(module.running_mean).cpu()  # type: ignore[arg-type]
    running_var = double(module.running_var).cpu()  # type: ignore[arg-type]
    # ε would make a small variance larger than it is.
    ratios = running_var.clamp_min(TINY) / variance.clamp_min(TINY)
    fitted = float(ratios.log().median().exp().sqrt())
    scale = _snapped(fitted) if abs(math.log(fitted)) > SIZE else 1.0
    if scale != 1:
        code = f"x / {1 / scale:.4g}" if scale < 1 else f"x * {scale:.4g}"
        usual = any(math.isclose(max(scale, 1 / scale), large) for large in USUAL[:LARGE])
        words = f"is {_factor(scale)}"
        yield _Candidate(lambda x: x * scale, words, code, scales=True, usual=usual)
    rest, per_one = running_mean - zero - scale * (mean - zero), one - zero
    weight = per_one / running_var.clamp_min(TINY)
    shift = float((rest * weight).sum() / (per_one * weight).sum().clamp_min(1e-12))
    if abs(shift) > MOVED * scale * _deviation(batches):
        size = "" if scale == 1 else f"{_factor(scale)} and "
        code = f"x{'' if scale == 1 else f' * {scale:.4g}'} {'+' if shift > 0 else '-'} "
        code += f"{abs(shift):.4g}"
        yield _Candidate(lambda x: x * scale + shift, f"is {size}shifted", code)


def _factor(scale: float) -> str:
    """How the input differs, if multiplying by `scale` repairs it."""
    return f"{1 / scale:.4g} times too large" if scale < 1 else f"{scale:.4g} times too small"


def _snapped(scale: float) -> float:
    """The usual factor that is near."""
    size = max(scale, 1 / scale)
    distances = {usual: abs(math.log(usual / size)) for usual in USUAL}
    least = min(distances.values())
    if least < ROUND:
        size = next(usual for usual, away in distances.items() if away <= least + ALIKE)
    return size if scale > 1 else 1 / size


def _standardised(batches: Sequence[Batch]) -> _Candidate:
    every = torch.cat([_rows(batch) for batch in batches])
    mean, deviation = every.mean(0), every.std(0).clamp_min(1e-12)
    code = f"(x - {_listed(mean)}) / {_listed(deviation)}"
    return _Candidate(
        lambda x: (x - _along(mean, x)) / _along(deviation, x),
        "is not standardised by the mean and standard deviation of each channel",
        code,
    )


def _imagenet() -> Iterator[_Candidate]:
    mean, deviation = map(torch.tensor, IMAGENET)
    words = "by the mean and standard deviation of ImageNet"
    numbers = f"{list(IMAGENET[0])}, {list(IMAGENET[1])}"
    yield _Candidate(
        lambda x: (x - _along(mean, x)) / _along(deviation, x),
        f"is not standardised {words}",
        f"torchvision.transforms.functional.normalize(x, {numbers})",
    )
    yield _Candidate(
        lambda x: x * _along(deviation, x) + _along(mean, x),
        f"is standardised {words}, but should not be",
        f"x * deviation + mean  # {numbers}",
    )


def _evidence(
    ward: Ward,
    findings: list[Finding],
    found: _Search,
    record: Record,
) -> Evidence:
    candidate, trial, layer = found.candidate, found.trial, record.norm.name
    every = ward.of(1, 2, 3, 4, 10)
    explained = [one for one in every if one.check == 3 or trial.restored(one.layer)]
    channels = record.norm.channels
    then, now = trial.before.off[layer], trial.after.off[layer]
    words = (
        f"The input {candidate.words}. With {candidate.code} the statistics of the first batch "
        f"norm, {layer!r}, fit: they are off by {now:.2g} σ instead of {then:.2g} σ, over "
        f"{channels} channels"
    )
    rest = trial.after.mean_off, trial.before.mean_off
    more = len(trial.before.off) - 1
    if more:
        words += f"; over all {more + 1} layers by {rest[0]:.2g} σ instead of {rest[1]:.2g} σ"
    undecided = candidate.scales and trial.before.loss is None and _means_say_nothing(ward, layer)
    sure = "likely"
    if undecided or channels < CHANNELS:
        sure = (
            "likely this, but the numbers fit wrong running statistics of this layer equally well"
        )
    return Evidence(
        findings=explained or findings,
        words=words,
        fix=f"x = {candidate.code}  # the preprocessing of training",
        sure=sure,
        trial=trial,
        data=True,
        go_on=lambda ward: ward.fed(found.batches),
    )


def _means_say_nothing(ward: Ward, layer: str) -> bool:
    """Whether running means are near zero, so that only the variances determine a scale."""
    module = ward.model.get_submodule(layer)
    mean, variance = double(module.running_mean), double(module.running_var)  # type: ignore[arg-type]
    return float((mean.square() / (variance + 1e-12)).mean().sqrt()) < SEEN


def _first_record(
    ward: Ward, first: Record, batches: Sequence[Batch], change: _Change
) -> Record | None:
    """Measure the input of the first layer with the changed input; None if that is not possible.

    The rest of the forward pass is skipped, unless it calls the layer again.
    """
    probe, layer = Probe(ward.model, ward.case.forward, brief=True), first.norm.name
    try:
        with probe:
            for batch in batches:
                if len(first.calls) > 1:
                    probe.run(_changed(batch, change))
                else:
                    probe.run_to(_changed(batch, change), layer)
    except AnynormError:
        return None
    named = [record for record in measurable(probe.records) if record.norm.name == layer]
    return named[0] if named else None


def _same(x: Tensor) -> Tensor:
    return x


def _zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def _ones(x: Tensor) -> Tensor:
    return torch.ones_like(x)


def _place(leaves: Sequence[object]) -> int | None:
    """The index of the input among a batch's leaves: the first floating-point tensor."""
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() > 1:
            return index
    return None


def _flat(batch: Batch) -> tuple[list[object], object]:
    return tree_flatten(dict(batch) if isinstance(batch, Mapping) else batch)


def _input_of(batch: Batch) -> Tensor | None:
    leaves = _flat(batch)[0]
    place = _place(leaves)
    return None if place is None else leaves[place]  # type: ignore[return-value]


def _changed(batch: Batch, change: _Change) -> Batch:
    leaves, structure = _flat(batch)
    place = _place(leaves)
    if place is not None:
        x: Tensor = leaves[place]  # type: ignore[assignment]
        leaves[place] = change(x).to(x.dtype)
    return tree_unflatten(leaves, structure)  # type: ignore[arg-type]


def _shape(batches: Sequence[Batch]) -> tuple[int, ...]:
    x = _input_of(batches[0])
    return () if x is None else tuple(x.shape)


def _rows(batch: Batch) -> Tensor:
    """The input as (values, channels)."""
    x = _input_of(batch)
    assert x is not None
    return double(x).movedim(1, -1).flatten(0, -2).cpu()


def _deviation(batches: Sequence[Batch]) -> float:
    return float(torch.cat([_rows(batch).flatten() for batch in batches]).std())


def _along(values: Tensor, x: Tensor) -> Tensor:
    """Reshape values of channels so that they broadcast along axis 1."""
    return values.to(x).view(1, -1, *[1] * (x.dim() - 2))


def _listed(values: Tensor) -> str:
    return str([float(f"{value:.3g}") for value in values.tolist()])
