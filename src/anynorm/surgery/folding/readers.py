"""The products with weights that read a normalizer's output, by whatever way it reaches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from anynorm.surgery.folding.passthrough_ops import (
    hands_on,
    labels_behind,
    named_argument,
    packet_of,
    readers,
    selected,
    selects,
    told_of,
    vector,
)
from anynorm.surgery.folding.weighted import State, pads, product_kind
from anynorm.surgery.refused import Refused

__all__ = ["Reader", "readers_of"]

_aten = torch.ops.aten
_MATRIX_PRODUCTS = {_aten.mm, _aten.matmul, _aten.bmm}


@dataclass(frozen=True)
class Reader:
    """A product of the normalizer's output with a weight that is a parameter.

    Args:
        node: the operator.
        told: its name in messages.
        weight: the name of the weight.
        axis: the axis of the weight over which the product sums the channels.
        route: the operators between the parameter and the product, such as a transpose.
        bias: the name of the bias; None if there is none.
        channels: the normalizer's channel of each input of the product.
        groups: the number of groups of a convolution.
        pads: whether the input is zero-padded.
    """

    node: Node
    told: str
    weight: str
    axis: int
    route: tuple[Node, ...]
    bias: str | None
    channels: Tensor
    groups: int = 1
    pads: bool = False


@dataclass(frozen=True)
class _Operands:
    """The operands of a product: the data, the weight, and its axis that is summed over."""

    data: Any
    data_axis: int
    weight: Any
    axis: int
    bias: Any
    groups: int = 1
    pads: bool = False


def readers_of(node: Node, labels: Tensor, state: State) -> list[Reader]:
    """Return every product that reads the values of `node`.

    Args:
        node: the operator that returns the normalizer's output.
        labels: the channel of each of its values.
        state: the parameters behind the nodes of the graph.

    Raises:
        Refused: A value goes to something else than a product with a parameter, or nowhere.
    """
    found: list[Reader] = []
    ahead = [(node, labels)]
    while ahead:
        current, own = ahead.pop()
        for user in readers(current):
            if hands_on(user) and user.args[0] is current:
                ahead.append((user, labels_behind(user, own)))
            elif selects(user) and user.args[0] is current:
                ahead.extend(selected(user, own))
            else:
                found.append(_reader(user, current, own, state))
    if not found:
        raise Refused("its output is not used")
    return found


def _reader(node: Node, data: Node, labels: Tensor, state: State) -> Reader:
    told = told_of(node, state.graph)
    operands = _operands(node)
    if operands is None or operands.data is not data or operands.weight is data:
        raise Refused(f"its output goes to {told}")
    channels = vector(labels, operands.data_axis % labels.dim())
    if channels is None:
        raise Refused(f"its channels are not those over which {told} sums")
    weight, axis, route = _parameter(operands.weight, operands.axis, told, state)
    bias = None if operands.bias is None else _named(operands.bias, "bias", told, state)
    return Reader(node, told, weight, axis, route, bias, channels, operands.groups, operands.pads)


def _operands(node: Node) -> _Operands | None:
    """The operands of a product with a weight; None for another operator."""
    kind, packet = product_kind(node), packet_of(node)
    if kind == "linear":
        return _Operands(node.args[0], -1, node.args[1], 1, named_argument(node, "bias", None))
    if kind == "convolution":
        x, weight = (one.meta["val"] for one in node.args[:2])  # type: ignore[union-attr]
        return _Operands(
            node.args[0],
            1 if x.dim() == weight.dim() else 0,
            node.args[1],
            1,
            named_argument(node, "bias", None),
            named_argument(node, "groups", 1),
            pads(node),
        )
    if packet is _aten.addmm and not node.kwargs:  # else α or β may scale
        bias, data, weight = node.args
        return _Operands(data, -1, weight, 0, bias)
    if packet in _MATRIX_PRODUCTS and isinstance(node.args[1], Node):
        rank = node.args[1].meta["val"].dim()
        return _Operands(node.args[0], -1, node.args[1], rank - 2, None) if rank > 1 else None
    return None


def _parameter(node: Any, axis: int, told: str, state: State) -> tuple[str, int, tuple[Node, ...]]:
    """The parameter of which a weight is a transpose, and where its axis is there."""
    route: list[Node] = []
    while state.of(node) is None and isinstance(node, Node) and hands_on(node):
        source = node.all_input_nodes[0]
        moved = _axis_before(node, source, axis)
        if moved is None:
            break
        route.append(node)
        node, axis = source, moved
    return _named(node, "weight", told, state), axis, tuple(reversed(route))


def _axis_before(node: Node, source: Node, axis: int) -> int | None:
    """The axis of `source` that becomes `axis` of `node`; None if axes are joined or split."""
    shape = source.meta["val"].shape
    empty = torch.empty(shape, device="meta")
    target: Any = node.target
    after = target(empty, *node.args[1:], **node.kwargs)
    if sorted(after.shape) != sorted(shape) or len(set(empty.stride())) < len(shape):
        return None
    strides = list(empty.stride())
    return strides.index(after.stride(axis)) if after.stride(axis) in strides else None


def _named(node: Any, what: str, told: str, state: State) -> str:
    name = state.graph.state(node)
    if name is None or state.of(node) is None:
        raise Refused(f"the {what} of {told} is computed, not a parameter")
    return name
