"""The products with weights that read a normalizer's output, by whatever way it reaches them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from anynorm.surgery.folding.passthrough_ops import (
    hands_on,
    labels_behind,
    readers,
    selected,
    selects,
    told_of,
    vector,
)
from anynorm.surgery.folding.products import operands_of, parameter_of, state_name
from anynorm.surgery.folding.weighted import State
from anynorm.surgery.refused import Refused

__all__ = ["Reader", "readers_of"]


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
    operands = operands_of(node)
    if operands is None or operands.data is not data or operands.weight is data:
        raise Refused(f"its output goes to {told}")
    channels = vector(labels, operands.data_axis % labels.dim())
    if channels is None:
        raise Refused(f"its channels are not those over which {told} sums")
    weight, axis, route = parameter_of(operands.weight, operands.axis, told, state)
    bias = None if operands.bias is None else state_name(operands.bias, "bias", told, state)
    return Reader(node, told, weight, axis, route, bias, channels, operands.groups, operands.pads)
