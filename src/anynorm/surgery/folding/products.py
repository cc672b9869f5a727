"""Products of data with a weight, and the parameter that the weight is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from anynorm.surgery.folding.passthrough_ops import hands_on, named_argument, packet_of
from anynorm.surgery.folding.weighted import State, pads, product_kind
from anynorm.surgery.refused import Refused

__all__ = ["Operands", "operands_of", "parameter_of", "same_axis", "state_name"]

_aten = torch.ops.aten
_MATRIX_PRODUCTS = {_aten.mm, _aten.matmul, _aten.bmm}


@dataclass(frozen=True)
class Operands:
    """The operands of a product of data with a weight.

    Args:
        data: the data.
        data_axis: the axis of the data over which the product sums.
        weight: the weight.
        axis: the axis of the weight over which the product sums.
        out_axis: the axis of the weight that has the outputs.
        data_out: the axis of the output that has them.
        bias: the bias; None if there is none.
        groups: the number of groups of a convolution.
        pads: whether the data are zero-padded.
    """

    data: Any
    data_axis: int
    weight: Any
    axis: int
    out_axis: int
    data_out: int
    bias: Any = None
    groups: int = 1
    pads: bool = False


def operands_of(node: Node) -> Operands | None:
    """The operands of a product with a weight; None for another operator."""
    kind, packet = product_kind(node), packet_of(node)
    if kind == "linear":
        return Operands(node.args[0], -1, node.args[1], 1, 0, -1, _bias(node))
    if kind == "convolution":
        data, weight = node.args[:2]
        ranks = [one.meta["val"].dim() for one in (data, weight)]  # type: ignore[union-attr]
        channels, groups = int(ranks[0] == ranks[1]), named_argument(node, "groups", 1)
        return Operands(data, channels, weight, 1, 0, channels, _bias(node), groups, pads(node))
    if packet is _aten.addmm and not node.kwargs:  # else α or β may scale
        bias, data, weight = node.args
        return Operands(data, -1, weight, 0, 1, -1, bias)
    if packet in _MATRIX_PRODUCTS and isinstance(node.args[1], Node):
        rank = node.args[1].meta["val"].dim()
        plain = rank > 1
        return Operands(node.args[0], -1, node.args[1], rank - 2, rank - 1, -1) if plain else None
    return None


def _bias(node: Node) -> Any:
    return named_argument(node, "bias", None)


def parameter_of(
    node: Any, axis: int, told: str, state: State
) -> tuple[str, int, tuple[Node, ...]]:
    """The parameter of which a weight is a transpose, and where its axis is there."""
    route: list[Node] = []
    while state.of(node) is None and isinstance(node, Node) and hands_on(node):
        source, moved = node.all_input_nodes[0], same_axis(node, axis, back=True)
        if moved is None:
            break
        route.append(node)
        node, axis = source, moved
    return state_name(node, "weight", told, state), axis, tuple(reversed(route))


def same_axis(node: Node, axis: int, *, back: bool = False) -> int | None:
    """The axis of the output of `node` that is `axis` of its first input; None if there is none.

    With `back`, the axis of the input that is `axis` of the output.  `node` only rearranges values.
    """
    before = torch.empty(node.all_input_nodes[0].meta["val"].shape, device="meta")
    target: Any = node.target
    after = target(before, *node.args[1:], **node.kwargs)
    after = after if isinstance(after, Tensor) else after[0]
    given, wanted = (after, before) if back else (before, after)
    axis %= given.dim()
    places = zip(wanted.shape, wanted.stride(), strict=True)
    own = (given.shape[axis], given.stride(axis))
    return next((place for place, one in enumerate(places) if one == own), None)


def state_name(node: Any, what: str, told: str, state: State) -> str:
    """The name of a parameter or buffer; raises `Refused` for a node that is none."""
    name = state.graph.state(node)
    if name is None or state.of(node) is None:
        raise Refused(f"the {what} of {told} is computed, not a parameter")
    return name
