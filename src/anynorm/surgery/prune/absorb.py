"""Add the constants of cut channels to the layers that read them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anynorm.surgery.channels import Channels, Use
from anynorm.surgery.graph import Graph
from anynorm.surgery.prune.carriers import ROUNDING, carry
from anynorm.surgery.prune.constants import Constants
from anynorm.surgery.prune.recorded import (
    Constant,
    among,
    input_constants,
    reading,
    reads,
    state_of,
)
from anynorm.surgery.prune.taps import by_group, even, responses, steps
from anynorm.surgery.receipt import Log

__all__ = ["absorb"]

_NO_CONSTANT = "nothing: no layer gets a constant other than 0 from the cut channels"
_CARRIED = "exactly, by a channel that is kept"
_BORDERS = "except at zero-padded borders"
_DIFFERS = "on average, since the constant varies"


@torch.no_grad()
def absorb(
    model: nn.Module,
    graph: Graph,
    channels: Channels,
    cut: set[int],
    carriers: set[int],
    log: Log,
) -> tuple[str, ...]:
    """Add to each layer the constants of its `cut` inputs; return the layers with new biases.

    A channel with γ = 0 has the constant value φ(β), so its contribution to a layer's output is
    constant too, except at zero-padded borders.  There one of the `carriers` stands for it, if the
    layer reads one: a channel that stays, with γ = 0.  Otherwise, if a batch norm follows the
    layer, the constant is subtracted from its running mean, or it is added to the layer's bias.
    """
    state = state_of(model)
    constants = input_constants(graph, channels, state, cut | carriers)
    for name in channels.scales:
        silent = among(channels.sites[name, 0], carriers).to(state[name].device)
        state[name].masked_fill_(silent, 0)
    given = _Given(model, graph, log)
    for uses in reading(channels):
        weight = state[uses[0].weight]
        labels = by_group(uses[0], channels.sites[reads(uses[0])])
        gone, kept = (among(labels, roots).to(weight.device) for roots in (cut, carriers))
        left = carry(uses, weight, constants, gone, kept)
        given.note_carried(uses[0], gone & ~left)
        given.take([_Shift.of(use, weight, constants[use.node], left) for use in uses])
    return given.added()


@dataclass(frozen=True)
class _Shift:
    """The contribution of the cut inputs to each output of a layer, and whether it varies."""

    use: Use
    value: Tensor
    varies: bool

    @classmethod
    def of(cls, use: Use, weight: Tensor, constant: Constant, gone: Tensor) -> _Shift:
        mean, spread = (by_group(use, part) * gone for part in constant)
        largest = mean.abs().max() if mean.numel() else mean.sum()
        value = responses(use, weight.detach().double()) @ mean[..., None]
        return cls(use, value.flatten(), bool((spread > ROUNDING * largest).any()))


class _Given:
    """Adds the constants of cut channels to layers, and notes where that is not exact."""

    def __init__(self, model: nn.Module, graph: Graph, log: Log) -> None:
        self._constants = Constants(model, graph, log)
        self._graph, self._log = graph, log
        self._notes: dict[str, list[str]] = {
            "exactly": [],
            _CARRIED: [],
            _BORDERS: [],
            _DIFFERS: [],
        }

    def note_carried(self, use: Use, inputs: Tensor) -> None:
        """Note that a kept channel stands for these inputs of a layer, if there are any."""
        if bool(inputs.any()):
            self._notes[_CARRIED].append(self._layer(use))

    def take(self, shifts: list[_Shift]) -> None:
        """Add the constants for the uses of one weight; several uses get the mean."""
        values = torch.stack([shift.value for shift in shifts])
        if not bool(values.any()):
            return
        use = shifts[0].use
        apart = bool((values - values[:1]).abs().max() > ROUNDING * values.abs().max())
        varies = apart or any(shift.varies for shift in shifts)
        uneven = use.transposed and math.prod(steps(use)) > 1
        how = _DIFFERS if varies or uneven else "exactly" if even(use) else _BORDERS
        self._notes[how].append(self._layer(use))
        self._constants.add([shift.use for shift in shifts], values.mean(0))

    def _layer(self, use: Use) -> str:
        return self._graph.module_of(use.node) or "the model"

    def added(self) -> tuple[str, ...]:
        """Log how exact it was; return the layers with new biases."""
        said = [f"{how}: {', '.join(layers)}" for how, layers in self._notes.items() if layers]
        self._log.facts["absorbed"] = "; ".join(said) or _NO_CONSTANT
        return tuple(self._constants.biases)
