"""Causes in the structure and use of a model: shared layers, conversions, batches, domains."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from anynorm.doctor.causes.evidence import Evidence
from anynorm.doctor.causes.score import Score
from anynorm.doctor.causes.ward import Trial, Ward
from anynorm.surgery.recalibrate import recompute
from anynorm.surgery.receipt import Log
from anynorm.surgery.walk import put, walk

__all__ = ["conversion", "domain", "shared", "small_batches"]


class _PerCall(nn.Module):
    """A container with one copy of a layer for each call in a forward pass."""

    def __init__(self, layer: nn.Module, calls: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(calls))
        self.called = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        layer = self.layers[self.called % len(self.layers)]
        self.called += 1
        return layer(*args, **kwargs)


def shared(ward: Ward) -> Evidence | None:
    """One layer is called on inputs of different moments."""
    found = ward.of(11)
    if not found:
        return None
    calls = {one.layer: int(one.numbers["calls"]) for one in found}

    def apart(model: nn.Module) -> nn.Module:
        """Give each call its own statistics; those of the other layers stay."""
        for place in walk(model):
            if place.names[0] in calls:
                own = _PerCall(place.module, calls[place.names[0]])
                model = put(model, place, own)
        inside = [f"{name}.layers.{i}" for name, n in calls.items() for i in range(n)]
        recompute(model, ward.batches, Log(), passes=1, forward=ward.case.forward, layers=inside)
        return model

    trial = ward.trial(apart)
    first = found[0]
    words = f"{first.layer!r}: {first.message}"
    explained = [
        one
        for one in ward.of(1, 2, 3, 4)
        if one.layer in calls or one.check == 3 or trial.restored(one.layer)
    ]
    line = first.fix + "; then recalibrate"
    return Evidence(found + explained, words, line, trial, go_on=lambda ward: ward.repaired(apart))


def conversion(ward: Ward) -> Evidence | None:
    """The conversion changed what the model computes."""
    found = ward.of(24)
    if not found or ward.case.source is None:
        return None
    words = f"{found[0].layer or 'the model'}: {found[0].message}"
    trial = Trial(Score(), Score(), "there are no batches")
    if ward.batches:
        trial = Trial(ward.before, ward.score(ward.case.source, ward.batches))
    explained = [one for one in ward.of(1, 2, 3) if one.check == 3 or trial.restored(one.layer)]
    # The source is the trained model, even if its loss is higher.
    effect = f"with the source model instead, {trial.said}"
    return Evidence(found + explained, words, found[0].fix, effect=effect)


def small_batches(ward: Ward) -> Evidence | None:
    """Statistics of few values: small batches, a last batch of one sample, accumulation."""
    found = ward.of(5, 6, 15)
    if not found:
        return None
    last = [one for one in found if one.check == 6]
    first = (last or found)[0]
    words = f"{first.layer or 'the model'}: {first.message}"
    name = "last batch of one sample" if last else ""
    effect = "not tried: it changes training, but no output in eval mode"
    return Evidence(found, words, first.fix, effect=effect, name=name)


def domain(ward: Ward) -> Evidence | None:
    """The data in use are not those of training."""
    found = ward.of(23)
    if not found:
        return None
    first = found[0]
    words = f"on the batches of target=, in {first.layer!r}, {first.message}"
    words += f"; {len(found)} layers are off in all" if len(found) > 1 else ""
    effect = "not tried: decide yourself whether the model should fit the new data"
    return Evidence(found, words, first.fix, effect=effect, sure="likely")
