"""Find the layer into which a normalizer is folded, or why there is none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anynorm import nn as own
from anynorm.surgery.affine import Affine, affine_of
from anynorm.surgery.folding.applications import (
    Application,
    Neighbour,
    applications,
    layer_before,
    layer_behind,
)
from anynorm.surgery.folding.weighted import State, Weighted, absorb_before, absorb_behind
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refused import Refused

__all__ = ["FoldPlan", "planned"]


@dataclass(frozen=True)
class FoldPlan:
    """A normalizer, the layer into which it is folded, and how."""

    norm: Normalizer
    layer: Weighted
    channels: Tensor  # the normalizer's channel of each output of the layer, or of each input
    absorb: Callable[[Any, Affine], tuple[Tensor, Tensor]]
    residual: bool

    @torch.no_grad()
    def carry_out(self) -> None:
        """Write the new weight and bias; raises `Refused` if they do not fit their type."""
        layer = self.layer.layer
        new = self.absorb(layer, affine_of(self.norm).of(self.channels))
        pairs = [(p, v.to(p)) for p, v in zip((layer.weight, layer.bias), new, strict=True)]
        if not all(bool(value.isfinite().all()) for _, value in pairs):
            raise Refused(f"the weights of {self.layer.told} would not be finite then")
        for parameter, value in pairs:
            parameter.copy_(value)

    @property
    def told(self) -> str:
        """What was done, for the receipt."""
        return f"folded into {self.layer.told}"

    @property
    def biased(self) -> set[nn.Module]:
        """The layer whose bias takes a part of the map."""
        return {self.layer.layer}

    @property
    def remainder(self) -> nn.Module:
        """The module that replaces the normalizer."""
        if children := _children(self.norm):
            return nn.Sequential(children)
        if self.norm.activation is not None or self.residual:
            return own.Activate(self.norm.activation)
        return nn.Identity()


def planned(norm: Normalizer, state: State) -> FoldPlan:
    """Plan to fold `norm` into the layer before it, or else the layer after; raises `Refused`."""
    if not norm.known:
        raise Refused(norm.doubt)
    uses = applications(norm, state)
    try:
        return _in_front(norm, uses, state)
    except Refused as reason:
        in_front = str(reason)
    try:
        return _behind(norm, uses, state)
    except Refused as reason:
        raise Refused(f"in front: {in_front}; behind: {reason}") from None


def _in_front(norm: Normalizer, uses: list[Application], state: State) -> FoldPlan:
    layer, channels = _one([layer_before(use, state) for use in uses], state)
    return FoldPlan(norm, layer, channels, absorb_behind, any(use.residual for use in uses))


def _behind(norm: Normalizer, uses: list[Application], state: State) -> FoldPlan:
    if norm.activation is not None or not all(use.plain for use in uses):
        raise Refused("an activation or a residual lies between")
    layer, channels = _one([layer_behind(use, state) for use in uses], state)
    if layer.kind == "transposed convolution":
        raise Refused(f"{layer.told} adds up a different number of terms at each place")
    if layer.pads:
        raise Refused(f"{layer.told} pads its input with zeros, which are not normalized")
    return FoldPlan(norm, layer, channels, absorb_before, residual=False)


def _one(found: list[Neighbour], state: State) -> tuple[Weighted, Tensor]:
    """The layer that is common to all uses and has no other uses, with its channels."""
    layers, channels = [one.layer for one in found], found[0].channels
    if len({layer.layer for layer in layers}) > 1:
        names = dict.fromkeys(repr(layer.name) for layer in layers)
        raise Refused(f"it is used with several layers: {', '.join(names)}")
    obstacle = layers[0].obstacle(state, [layer.node for layer in layers])
    if obstacle is not None:
        raise Refused(obstacle)
    if not all(torch.equal(one.channels, channels) for one in found):
        raise Refused(f"{layers[0].told} has its channels in other places from use to use")
    return layers[0], channels


def _children(norm: Normalizer) -> OrderedDict[str, nn.Module]:
    """The modules that a fused layer applies after normalizing, with their names."""
    named = norm.layer._modules.items() if norm.fused else ()
    return OrderedDict((n, m) for n, m in named if m is not None and type(m) is not nn.Identity)
