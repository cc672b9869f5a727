"""Fold some normalizers of a model, all that can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.bias import add_bias
from anynorm.surgery.folding.fold_plan import FoldPlan, planned
from anynorm.surgery.folding.gain_plan import GainPlan, planned_gain
from anynorm.surgery.folding.weighted import State
from anynorm.surgery.graph import capture
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.receipt import Log
from anynorm.surgery.refused import Refused
from anynorm.surgery.transfer_hooks import succeed
from anynorm.surgery.walk import put

__all__ = ["fold_norms"]


def fold_norms(
    model: nn.Module,
    norms: Sequence[Normalizer],
    example: Batch,
    forward: Forward | None,
    log: Log,
) -> nn.Module:
    """Fold those of `norms` that can be into the layers around them, as in eval mode.

    `log` gets a note for each: what was done, or the reason why not.
    """
    lent = _lend_biases(model)
    state = State(model, capture(model, example, forward))
    plans = [_planned(norm, state, log) for norm in norms]  # before any weight changes
    done = [plan for plan in plans if plan is not None and _carried_out(plan, log)]
    for plan in done:
        if plan.remainder is not plan.norm.module:
            model = put(model, plan.norm.place, succeed(plan.norm.module, plan.remainder))
    needed = {layer for plan in done for layer in plan.biased}
    for layer in lent:
        layer.bias = layer.bias if layer in needed else None
    return model


def _planned(norm: Normalizer, state: State, log: Log) -> FoldPlan | GainPlan | None:
    try:
        return planned(norm, state) if norm.fixed else planned_gain(norm, state)
    except Refused as reason:
        log.refuse(norm.name, str(reason))
        return None


def _carried_out(plan: FoldPlan | GainPlan, log: Log) -> bool:
    try:
        plan.carry_out()
    except Refused as reason:
        log.refuse(plan.norm.name, str(reason))
        return False
    log.change(plan.norm.name, plan.told)
    return True


def _lend_biases(model: nn.Module) -> list[Any]:
    """Give layers without a bias a zero bias, so that the graph shows whether they would use it."""
    layers = [layer for layer in model.modules() if _lacks_bias(layer)]
    for layer in layers:
        add_bias(layer)
    return layers


def _lacks_bias(layer: nn.Module) -> bool:
    if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
        return False
    weight, bias = (layer._parameters.get(name, layer) for name in ("weight", "bias"))
    return bias is None and isinstance(weight, nn.Parameter) and not is_lazy(weight)
