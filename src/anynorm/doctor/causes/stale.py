"""Causes of running statistics that do not fit the weights: count, momentum, average, lag."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from anynorm.doctor.causes.evidence import Evidence, counted
from anynorm.doctor.causes.ward import Trial, Ward
from anynorm.doctor.drift import Drift
from anynorm.doctor.finding import Finding
from anynorm.doctor.geometry import double

__all__ = ["RECALIBRATE", "averaged", "dropout", "few_batches", "lag", "momentum", "one_layer"]

RECALIBRATE = "model = anynorm.surgery.recalibrate(model, batches).model"
UNPROVEN = (
    "without labels it is unknown whether the statistics are wrong, or the data are not those of "
    "training"
)
STALE = (1, 2, 3, 4)
CONVENTION = 0.5  # a momentum of this or more is in the other convention
SLOW = 1e-4  # with a smaller momentum, statistics hardly move in a usual training
MOST = 0.8  # of the layers
FITS = 0.1  # σ: statistics of a layer that are off by less are said to fit
ACCOUNTS = 0.8  # at most this part of the distance is left if the initial statistics explain it
SHRUNK = 0.05  # log of the ratio of variances, running over data
HALF = 0.5  # of the layers, if only a name says that the weights are an average
_AVERAGED = {"averaged", "avg", "ema", "polyak", "swa"}  # words of names


def few_batches(ward: Ward) -> Evidence | None:
    """By the count of batches, the running statistics still contain the initial ones."""
    young = ward.of(4)
    if not young:
        return None
    first = _first_off(ward)
    if first is not None and first not in {one.layer for one in young}:
        return None
    left = max(float(one.numbers["left over"]) for one in young)
    if first is not None and not _accounts_for(ward, next(f for f in young if f.layer == first)):
        return None
    fewest = min(int(one.numbers["batches"]) for one in young)
    words = (
        f"{counted(one.layer for one in young)} counted {fewest} batch{'es' if fewest != 1 else ''}"
        f" in training, so a share of {left:.2g} of the statistics is still the initial mean 0 and "
        "variance 1"
    )
    momenta = {_momentum(ward, one.layer) for one in young}
    name = ""
    if any(m is not None and m < SLOW for m in momenta):
        name = "momentum lost"
        words += f"; the momentum is {min(m for m in momenta if m is not None):g}"
    return _recalibrating(ward, young, words, "certain", name)


def _accounts_for(ward: Ward, young: Finding) -> bool:
    """Whether the share of the initial statistics explains how far a layer's statistics are off.

    If not, the count may be small, but the fault is another one.
    """
    left = float(young.numbers["left over"])
    record = next(d.record for d in ward.case.drifts if d.record.norm.name == young.layer)
    values, module = record.inputs.values, record.norm.layer
    running = double(module.running_mean).cpu(), double(module.running_var).cpu() + module.eps

    def off(mean: Tensor, variance: Tensor) -> float:
        by_mean = (running[0] - mean) / variance.sqrt()
        by_deviation = (running[1] / variance).log() / 2
        return float((by_mean.square() + by_deviation.square()).mean().sqrt())

    variance = values.variance + module.eps
    now = off(values.mean, variance)
    return off((1 - left) * values.mean, (1 - left) * variance + left) <= ACCOUNTS * now


def momentum(ward: Ward) -> Evidence | None:
    """A momentum of 0.5 or more makes the statistics those of the last batch."""
    found = ward.of(7)
    if not found:
        return None
    value = max(float(one.numbers["momentum"]) for one in found)
    meant = float(found[0].numbers["momentum meant"])
    words = (
        f"momentum {value:g} in {counted(one.layer for one in found)}; in other libraries this is "
        f"the weight of the old value, which is {meant:g} here"
    )
    if not ward.of(1, 2):
        return Evidence(
            found, words, found[0].fix, repair="layer", effect="outputs in eval mode stay the same"
        )
    made = _recalibrating(ward, found, words, "certain", keep=_from_on(ward, found))
    line = f"{found[0].fix}; {RECALIBRATE}"
    return replace(made, repair="statistics", fix=line)


def _from_on(ward: Ward, found: Sequence[Finding]) -> set[str]:
    """The first layer with a finding and all later ones; earlier layers have another cause."""
    order, names = ward.before.order, {one.layer for one in found}
    start = min((order.index(name) for name in names if name in order), default=0)
    return {*order[start:], *names}


def averaged(ward: Ward) -> Evidence | None:
    """Statistics are off in all layers, as they are after averaging weights."""
    if given := ward.of(13):
        words = (
            f"the statistics of the averaged model are off in {counted(one.layer for one in given)}"
        )
        line = "averaged = anynorm.surgery.recalibrate(averaged, batches).model"
        return Evidence(given, words, line, effect="not tried: fix() changes only the model")
    off = _off(ward)
    if not off or not ward.of(1, 2):
        return None
    named, told = _names_an_average(ward), _averaging(ward.case.origin)
    layers = len(ward.case.drifts)
    ratios = [_ratio(drift) for drift in off]
    shrunk = sum(ratio > SHRUNK for ratio in ratios) >= MOST * len(ratios)
    as_averaging = shrunk and len(off) >= MOST * layers and layers >= 2
    if not named and not as_averaging and not (told and len(off) >= HALF * layers):
        return None
    middle = statistics.median(ratios)
    words = (
        f"statistics are off in {len(off)} of {layers} layers; in the median layer the running "
        f"variance is {math.exp(middle):.2g} times that of the data"
    )
    words += ", as after averaging weights" if shrunk else ""
    words += f"; the name {named!r} in the model means averaged weights" if named else ""
    words += f"; the weights come from {ward.case.origin!r}" if told else ""
    sure = "likely" if as_averaging else "likely, only by the name of the weights"
    sure = "certain" if named else f"{sure}, or other weights were loaded without their statistics"
    return _recalibrating(ward, [], words, sure)


def dropout(ward: Ward) -> Evidence | None:
    """The statistics are those with dropout on."""
    found = ward.of(17)
    if not found:
        return None
    right = [f for f in ward.of(1, 2) if f.numbers.get("with dropout on") == "right"]
    words = "; ".join(f"{one.layer}: {one.message}" for one in found[:2])
    if right:
        words += (
            f"; with dropout on the statistics of {counted(one.layer for one in right)} are right"
        )
    if not ward.of(*STALE):
        return Evidence(found, words, found[0].fix, effect="not tried: it needs training")
    return _recalibrating(ward, found + right, words, "certain" if right else "likely")


def one_layer(ward: Ward) -> Evidence | None:
    """One layer lost its statistics: those of later layers fit when its own are recomputed."""
    off = _off(ward)
    if not off or not ward.of(1, 2) or ward.reason:
        return None
    layer = off[0].record.norm.name
    trial = ward.trial(partial(ward.recompute, layers=[layer]))
    behind = [drift.record.norm.name for drift in off[1:]]
    if trial.reason or any(trial.after.off.get(name, 0.0) > FITS for name in behind):
        return None
    if len(ward.case.drifts) == 1:
        return None  # there is no other layer to compare with
    words = f"of {len(ward.case.drifts)} layers, {layer!r} is the"
    if behind:
        words += " first with wrong statistics; when they are recomputed, those of the other "
        words += f"{len(behind)} fit again"
    else:
        words += " only one with wrong statistics"
    name = f"statistics of {layer} lost or changed"
    return _recalibrating(ward, [], words, "likely", name, (layer,))


def lag(ward: Ward) -> Evidence | None:
    """No other cause fits: the statistics are those of other weights or other data."""
    off = _off(ward)
    if not ward.of(1, 2, 3):
        return None
    words = f"statistics are off in {len(off)} of {len(ward.case.drifts)} layers"
    if slow := _slow(ward):
        words += f"; the momentum is {slow:g}, so they hardly move"
    elif off:
        words += f", first in {off[0].record.norm.name!r}"
    others = "averaged weights without statistics, or data that are not those of training"
    sure = f"likely this, but the numbers fit {others} equally well"
    sure = "certain" if slow else sure
    name = "momentum lost" if slow else ""
    if not off:
        words = "the loss is higher with running statistics, but no test finds them off"
        name, sure = "cause unknown", "the measurements do not show the cause"
    made = _recalibrating(ward, [], words, sure, name)
    # This is the last row, so it also takes the findings that no repair restored.
    return replace(made, findings=[one for one in ward.findings if one in ward.of(*STALE)])


def _recalibrating(
    ward: Ward,
    own: Sequence[Finding],
    words: str,
    sure: str,
    name: str = "",
    layers: tuple[str, ...] = (),
    keep: set[str] | None = None,
) -> Evidence:
    """Return the evidence for a cause that is repaired by recomputing statistics.

    Statistics are recomputed in `layers`, or in all layers. With `keep`, the cause explains only
    findings on these layers.
    """
    trial = ward.recalibrated(layers=layers)
    every = ward.of(*STALE, 10)
    explained = [
        one
        for one in every
        if one in own
        or one.check == 3
        or (one.check != 10 and (trial.reason or trial.restored(one.layer)))
    ]
    explained = [one for one in explained if keep is None or one.layer in keep]
    others = [one for one in own if one not in explained]
    refused = trial.refusal or ward.too_few(trial)
    line = RECALIBRATE
    if layers:
        line = line.replace("batches)", f"batches, layers={list(layers)})")
    if not (others or explained):
        explained = ward.of(1, 2)
    return Evidence(
        findings=[*others, *explained],
        words=words,
        fix=line,
        trial=trial,
        sure=sure,
        repair="statistics",
        refused=refused,
        unproven="" if sure == "certain" or layers or _judged(trial) else UNPROVEN,
        name=name,
        layers=layers,
        go_on=lambda ward: ward.repaired(partial(ward.recompute, layers=layers)),
    )


def _judged(trial: Trial) -> bool:
    """Whether the effect of the repair is measured by a loss."""
    return trial.before.loss is not None


def _off(ward: Ward) -> list[Drift]:
    """The layers whose statistics are off, in the order of the forward pass."""
    if ward.case.survey is None:
        return []
    return [drift for drift in ward.case.drifts if bool(drift.off.any())]


def _first_off(ward: Ward) -> str | None:
    off = _off(ward)
    return off[0].record.norm.name if off else None


def _ratio(drift: Drift) -> float:
    """The log of the ratio of variances, in the median channel."""
    return float(drift.variance.median())


def _momentum(ward: Ward, layer: str) -> float | None:
    given = getattr(ward.case.model.get_submodule(layer), "momentum", None)
    return None if given is None else float(given)


def _slow(ward: Ward) -> float | None:
    """The smallest momentum, if it is too small to move the statistics."""
    found = [m for norm in ward.case.tracking if (m := _momentum(ward, norm.name)) is not None]
    return min(found) if found and min(found) < SLOW else None


def _names_an_average(ward: Ward) -> str:
    """The name of the model's class or of a buffer that says that the weights are an average.

    Names of inner layers do not count: there is an attention layer that is called EMA.
    """
    names = [type(ward.case.model).__name__]
    names += [name for name, _ in ward.case.model.named_buffers(recurse=False)]
    return next(filter(_averaging, names), "")


def _averaging(name: str) -> bool:
    """Whether a name has a word for averaged weights.

    >>> [_averaging(name) for name in ("AveragedModel", "net_ema.pt", "ModelEMA", "schema.pt")]
    [True, True, True, False]
    """
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return not _AVERAGED.isdisjoint(word.lower() for word in words)
