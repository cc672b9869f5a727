"""The residual stream of a model: what writes to it and what reads it, from the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from anynorm.surgery.folding.passthrough_ops import (
    casts,
    hands_on,
    named_argument,
    packet_of,
    readers,
    selects,
    told_of,
)
from anynorm.surgery.folding.products import operands_of, parameter_of, same_axis, state_name
from anynorm.surgery.folding.weighted import State
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refused import Refused

__all__ = ["Stream", "Writer", "stream_of"]

_aten = torch.ops.aten


@dataclass(frozen=True)
class Writer:
    """A parameter whose values along `axis` are added to the channels of the stream."""

    name: str
    axis: int
    users: tuple[Node, ...]  # the operators through which it writes


@dataclass
class Stream:
    """A residual stream.

    Args:
        norms: the normalizers that read it.
        writers: the parameters that are written to it.
    """

    norms: list[Normalizer] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)


def stream_of(
    first: Normalizer, readers_by_node: Mapping[Node, Normalizer], state: State
) -> Stream:
    """Return the stream that `first` reads.

    Args:
        first: one of its readers.
        readers_by_node: the normalizers that may read it, by the operators that they run.
        state: the parameters behind the nodes of the graph.

    Raises:
        Refused: Something else than a product, an embedding or a parameter writes to the stream,
            or something else than one of these normalizers reads it.
    """
    found = Stream()
    ahead = _inputs(first, state)
    if not ahead:
        raise Refused("the example does not reach it")
    axes = dict(ahead)
    while ahead:
        node, axis = ahead.pop()
        for other, place in (
            *_sources(node, axis, found, state),
            *_sinks(node, axis, found, readers_by_node, state),
        ):
            if other not in axes:
                axes[other] = place
                ahead.append((other, place))
            elif axes[other] != place:
                raise Refused(f"the channels of {told_of(other, state.graph)} move")
    return found


def _inputs(norm: Normalizer, state: State) -> list[tuple[Node, int]]:
    """What a normalizer is called on, with the axis of its channels."""
    calls = [call for name in norm.place.names for call in state.graph.calls.get(name, ())]
    if any(len(call.inputs) != 1 for call in calls):
        raise Refused(f"{norm.name!r} is not called with one tensor")
    inputs = dict.fromkeys(call.inputs[0] for call in calls)
    return [(node, norm.channel_axis(node.meta["val"].dim())) for node in inputs]


def _sources(node: Node, axis: int, found: Stream, state: State) -> list[tuple[Node, int]]:
    """What `node` is made of, with the axis of the channels; notes the writers."""
    told = told_of(node, state.graph)
    parts = _parts(node, axis, told)
    if parts is None:
        found.writers += _writers(node, axis, told, state)
    return parts or []


def _parts(node: Node, axis: int, told: str) -> list[tuple[Node, int]] | None:
    """The parts of a sum, of what is joined, or of what is only moved; None for what writes."""
    rank, packet = node.op == "call_function" and node.meta["val"].dim(), packet_of(node)
    if packet is _aten.add and "alpha" not in node.kwargs:
        return [_term(one, axis - rank, told) for one in node.args[:2]]
    if packet is _aten.cat:
        if named_argument(node, "dim", 0) % rank == axis:
            raise Refused(f"{told} joins channels")
        return [_term(one, axis - rank, told) for one in node.args[0]]  # type: ignore[union-attr]
    if _scales(node) or casts(node):
        return [_term(node.args[0], axis - rank, told)]
    if _moves(node):
        before = same_axis(node, axis, back=True)
        if before is None:
            raise Refused(f"the channels of {told} move")
        return [(node.all_input_nodes[0], before)]
    return None


def _writers(node: Node, axis: int, told: str, state: State) -> list[Writer]:
    """The parameters of an operator that writes to the stream."""
    if state.of(node) is not None:
        return [Writer(state_name(node, "weight", told, state), axis, tuple(readers(node)))]
    if packet_of(node) is _aten.embedding:
        return [Writer(state_name(node.args[0], "weight", told, state), 1, (node,))]
    operands = operands_of(node)
    if operands is None or operands.data_out % node.meta["val"].dim() != axis:
        raise Refused(f"{told} writes to the residual stream")
    weight, out_axis, route = parameter_of(operands.weight, operands.out_axis, told, state)
    found = [Writer(weight, out_axis, (*route, node))]
    if operands.bias is not None:
        found.append(Writer(state_name(operands.bias, "bias", told, state), 0, (node,)))
    return found


def _term(one: Any, from_end: int, told: str) -> tuple[Node, int]:
    """A part of a sum and the axis of its channels, which `from_end` counts from the last."""
    if not isinstance(one, Node):
        raise Refused(f"{told} adds a constant to the residual stream")
    if one.meta["val"].dim() < -from_end:
        raise Refused(f"{told} adds what has no channels to the residual stream")
    return one, one.meta["val"].dim() + from_end


def _sinks(
    node: Node, axis: int, found: Stream, norms: Mapping[Node, Normalizer], state: State
) -> list[tuple[Node, int]]:
    """What reads `node`, with the axis of the channels; notes the normalizers."""
    following: list[tuple[Node, int]] = []
    for user in readers(node):
        if user in norms:
            norm = norms[user]
            if norm not in found.norms:
                found.norms.append(norm)
                following += _inputs(norm, state)
        else:
            following.append((user, _axis_in(user, node, axis, told_of(user, state.graph))))
    return following


def _axis_in(user: Node, node: Node, axis: int, told: str) -> int:
    """The axis of the channels of `node` in what reads it."""
    if packet_of(user) in (_aten.add, _aten.cat) or _scales(user) or casts(user):
        return int(axis - node.meta["val"].dim() + user.meta["val"].dim())
    if not _moves(user):
        raise Refused(f"{told} reads the residual stream as well, with its mean")
    after = same_axis(user, axis)
    if after is None:
        raise Refused(f"the channels of {told} move")
    return after


def _scales(node: Node) -> bool:
    """Whether `node` multiplies all values by one number."""
    return packet_of(node) is _aten.mul and isinstance(node.args[1], (int, float))


def _moves(node: Node) -> bool:
    """Whether `node` returns values of its input elsewhere, and one tensor."""
    moved = hands_on(node) or (selects(node) and packet_of(node) is not _aten.mean)
    return moved and isinstance(node.meta["val"], Tensor)
