"""Fold γ and β of a normalizer into the layers that read its output; its statistics stay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.fx import Node

from anynorm.surgery.affine import Affine
from anynorm.surgery.folding.passthrough_ops import casts, hands_on
from anynorm.surgery.folding.readers import Reader, readers_of
from anynorm.surgery.folding.weighted import State, mapped_inputs
from anynorm.surgery.graph import ModuleCall
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refused import Refused
from anynorm.surgery.streaming_stats import double
from anynorm.surgery.transfer_hooks import hooked

__all__ = ["GainPlan", "planned_gain"]


@dataclass(frozen=True)
class GainPlan:
    """A normalizer whose γ and β go into the weights and biases of the products behind it.

    `readers` has one of the uses of each weight; `shifts` says whether β is not 0.
    """

    norm: Normalizer
    readers: tuple[Reader, ...]
    state: State
    shifts: bool

    @torch.no_grad()
    def carry_out(self) -> None:
        """Write the new weights and biases, γ = 1 and β = 0.

        Raises `Refused` if they do not fit their type; then nothing was written.
        """
        written = [pair for reader in self.readers for pair in self._new(reader)]
        for (_, value), told in written:
            if not bool(value.isfinite().all()):
                raise Refused(f"the weights of {told} would not be finite then")
        for (parameter, value), _ in written:
            parameter.copy_(value)
        gain, shift = self.norm.layer.weight, getattr(self.norm.layer, "bias", None)
        if gain is not None:
            gain.fill_(1 - self.norm.spec.learned.offset)
        if shift is not None:
            shift.zero_()

    def _new(self, reader: Reader) -> list[tuple[tuple[Tensor, Tensor], str]]:
        weight = self.state.named(reader.weight)
        affine = _affine(self.norm).of(reader.channels)
        # As (outputs, inputs, ...).
        laid = double(weight).movedim(reader.axis, 1)
        scaled, shift = mapped_inputs(laid, affine, reader.groups)
        found = [((weight, scaled.movedim(1, reader.axis).to(weight)), reader.told)]
        if self.shifts:
            assert reader.bias is not None
            bias = self.state.named(reader.bias)
            found.append(((bias, (double(bias) + shift).to(bias)), reader.told))
        return found

    @property
    def remainder(self) -> nn.Module:
        """The module stays, so that the names in the state dict stay."""
        return self.norm.module

    @property
    def told(self) -> str:
        """What was done, for the receipt."""
        layers = ", ".join(dict.fromkeys(reader.told for reader in self.readers))
        return f"{'γ and β' if self.shifts else 'γ'} folded into {layers}"

    @property
    def biased(self) -> set[nn.Module]:
        """The layers whose biases take β."""
        if not self.shifts:
            return set()
        biases = [reader.bias for reader in self.readers if reader.bias is not None]
        return {owner for name in biases for owner in self.state.owners(self.state.named(name))}


def planned_gain(norm: Normalizer, state: State) -> GainPlan:
    """Plan to fold γ and β into every product that reads the output; raises `Refused`."""
    if not norm.known:
        raise Refused(norm.doubt)
    try:
        return _planned(norm, state)
    except Refused as reason:
        raise Refused(f"{_why_statistics_stay(norm)}; γ and β: {reason}") from None


def _why_statistics_stay(norm: Normalizer) -> str:
    if norm.keeps:
        return f"{norm.family} norm mixes the channels of a group"
    whose = "batch" if norm.spec.uses_batch else "input"
    return f"{norm.family} norm takes its statistics from each {whose} here"


def _planned(norm: Normalizer, state: State) -> GainPlan:
    gain, shift = norm.affine
    if gain is None and shift is None:
        raise Refused("there are none")
    if any(one is not None and one.dim() != 1 for one in (gain, shift)):
        raise Refused("they have several axes")
    if norm.activation is not None:
        raise Refused("an activation follows inside the layer")
    if hooked(norm.module):
        raise Refused("the layer has hooks, which may change its output")
    _check_private(norm, state)
    found: list[Reader] = []
    for node, labels in _outputs(norm, state):
        found += readers_of(node, labels, state)
    shifts = shift is not None and bool(shift.any())
    readers = [_one(uses, state, shifts) for uses in _by_weight(found)]
    return GainPlan(norm, tuple(readers), state, shifts)


def _check_private(norm: Normalizer, state: State) -> None:
    """Raise `Refused` if another module uses γ or β."""
    for tensor in norm.module.parameters():
        users = (*state.owners(tensor), *(state.module_of(node) for node in state.users(tensor)))
        if any(user is not norm.module for user in users):
            raise Refused("another module uses them too")


def _outputs(norm: Normalizer, state: State) -> list[tuple[Node, Tensor]]:
    """The operators that return the normalizer's output, with the channel of each value."""
    calls = [call for name in norm.place.names for call in state.graph.calls.get(name, ())]
    if not calls:
        raise Refused("the example does not reach it")
    found = []
    for call in calls:
        outputs = [node for node in call.outputs if not _is_input(node, call)]
        if len(call.inputs) != 1 or len(outputs) != 1:
            raise Refused("it is not called with one tensor, or returns several")
        [node] = outputs
        shape = node.meta["val"].shape
        axis = norm.channel_axis(len(shape))
        channels = torch.arange(shape[axis])
        found.append((node, channels.reshape(-1, *[1] * (len(shape) - 1 - axis)).expand(shape)))
    return found


def _is_input(node: Node, call: ModuleCall) -> bool:
    """Whether a node returns the input; a cast that changes nothing is an operator too."""
    while node in call.nodes and (hands_on(node) or casts(node)):
        node = node.all_input_nodes[0]
    return node in call.inputs


def _by_weight(readers: Iterable[Reader]) -> list[list[Reader]]:
    ordered = sorted(readers, key=lambda reader: reader.weight)
    return [list(uses) for _, uses in groupby(ordered, key=lambda reader: reader.weight)]


def _one(uses: list[Reader], state: State, shifts: bool) -> Reader:
    """One of the uses of a weight by the normalizer; raises `Refused` if there are other uses."""
    first = uses[0]
    _check_only(first.weight, "weight", uses, state)
    places = {(reader.axis, reader.groups) for reader in uses}
    if len(places) > 1 or not all(torch.equal(r.channels, first.channels) for r in uses):
        raise Refused(f"{first.told} has its channels in other places from use to use")
    if shifts:
        if first.pads:
            raise Refused(f"{first.told} pads its input with zeros, to which β is not added")
        if any(reader.bias is None for reader in uses):
            raise Refused(f"{first.told} has no bias that could take β")
        assert first.bias is not None
        _check_only(first.bias, "bias", uses, state)
    return first


def _check_only(name: str, what: str, uses: list[Reader], state: State) -> None:
    """Raise `Refused` unless a parameter is used by these products only."""
    allowed = {node for reader in uses for node in (*reader.route, reader.node)}
    between = [user for reader in uses for node in reader.route for user in node.users]
    reason = state.obstacle(name, allowed)
    if not reason and not allowed.issuperset(between):
        reason = "is used elsewhere too"
    if reason:
        raise Refused(f"the {what} of {uses[0].told} {reason}")


def _affine(norm: Normalizer) -> Affine:
    """γ and β of each channel, in float64."""
    gain, shift = norm.affine
    count = norm.channels
    like = gain if gain is not None else shift
    assert like is not None
    one = torch.ones(count, dtype=torch.float64, device=like.device)
    return Affine(
        one if gain is None else double(gain) * one, 0 * one if shift is None else double(shift)
    )
