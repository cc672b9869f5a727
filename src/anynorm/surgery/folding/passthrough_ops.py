"""Operators that only rearrange values, and where they put the values of each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from anynorm.surgery.graph import Graph
from anynorm.surgery.refused import Refused

__all__ = [
    "casts",
    "hands_on",
    "kind_of",
    "labels_before",
    "labels_behind",
    "named_argument",
    "packet_of",
    "readers",
    "selected",
    "selects",
    "told_of",
    "vector",
]

_aten = torch.ops.aten
_COPIES = {_aten.clone, _aten.contiguous, _aten.alias, _aten.detach}
_VIEWS = {
    *(_aten.view, _aten.reshape, _aten.flatten, _aten.unflatten, _aten._unsafe_view),
    *(_aten.squeeze, _aten.unsqueeze, _aten.view_as, _aten.reshape_as),
}
_MOVES = {
    *(_aten.permute, _aten.transpose, _aten.t, _aten.numpy_T, _aten.mT, _aten.movedim),
    *(_aten.moveaxis, _aten.swapaxes, _aten.swapdims, _aten.flip, _aten.roll),
    *(_aten.pixel_shuffle, _aten.pixel_unshuffle, _aten.channel_shuffle),
}
# These return some values of their first argument, and may repeat them.
_SELECTIONS = {
    *(_aten.slice, _aten.select, _aten.narrow, _aten.index_select, _aten.index, _aten.gather),
    *(_aten.split, _aten.split_with_sizes, _aten.chunk, _aten.unbind),
    *(_aten.expand, _aten.repeat, _aten.repeat_interleave, _aten.tile),
}
_CASTS = {_aten.to, _aten._to_copy, _aten.type_as}
_DROPOUTS = {_aten.dropout, _aten.feature_dropout, _aten.alpha_dropout}
# These look at the shape of their second argument only, and those at nothing but shape and type.
_LIKE_SECOND = {_aten.view_as, _aten.reshape_as, _aten.expand_as}
_LIKE = {
    *(_aten._assert_tensor_metadata, _aten.sym_size),
    *(_aten.new_zeros, _aten.new_ones, _aten.new_full, _aten.new_empty),
    *(_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.empty_like),
}


def hands_on(node: Node) -> bool:
    """Whether `node` returns each value of its first argument once, in any shape and order.

    Dropout does so in eval mode.
    """
    kind = packet_of(node)
    if kind in _DROPOUTS:
        return not node.args[2]
    return kind in _COPIES | _VIEWS | _MOVES


def selects(node: Node) -> bool:
    """Whether each value that `node` returns is one of its first argument, or a mean over them.

    A mean must be over values of one channel, which `selected` checks.
    """
    kind = packet_of(node)
    if kind is _aten.mean:
        return len(node.args) > 1
    return casts(node) or (kind in _SELECTIONS and len(node.all_input_nodes) == 1)


def casts(node: Node) -> bool:
    """Whether `node` returns its first argument in a floating-point type."""
    return packet_of(node) in _CASTS and bool(node.meta["val"].is_floating_point())


def selected(node: Node, labels: Tensor) -> list[tuple[Node, Tensor]]:
    """Return what reads the output of a node that `selects`, with the channel of each value.

    Raises:
        Refused: The mean is over several channels.
    """
    if casts(node):
        return [(node, labels)]
    if packet_of(node) is _aten.mean:
        dims: Any = node.args[1]
        keep = bool(named_argument(node, "keepdim", False))
        low, high = (one(labels, dims, keepdim=keep) for one in (torch.amin, torch.amax))
        if not torch.equal(low, high):
            raise Refused("its output goes to a mean over channels")
        return [(node, low)]
    found = _run(node, labels)
    if isinstance(found, Tensor):
        return [(node, found)]
    return [(user, found[user.args[1]]) for user in node.users]  # operator.getitem


def readers(node: Node) -> list[Node]:
    """The operators that use the values of `node`, not only its shape or type."""
    return [user for user in node.users if _reads(user, node)]


def labels_behind(node: Node, labels: Tensor) -> Tensor:
    """Return the channel of each output value of `node`, for which `hands_on` is True.

    Args:
        node: the operator.
        labels: the channel of each value that goes in.

    Shape:
        - labels: that of what goes in; the result has that of what comes out.
    """
    kind = packet_of(node)
    if kind in _VIEWS:
        return labels.reshape(_shape(node))
    moved: Tensor = _run(node, labels) if kind in _MOVES else labels
    return moved


def labels_before(node: Node, labels: Tensor) -> Tensor:
    """Return the channel of each input value of `node`, from the channels of its output values.

    >>> from anynorm.surgery.graph import capture
    >>> graph = capture(torch.nn.Unflatten(1, (2, 3)), torch.zeros(5, 6))
    >>> unflatten = next(node for node in graph.nodes.nodes if hands_on(node))
    >>> labels_before(unflatten, torch.arange(2)[:, None].expand(5, 2, 3))[0]
    tensor([0, 0, 0, 1, 1, 1])
    """
    kind, shape = packet_of(node), _shape(node.all_input_nodes[0])
    if kind in _VIEWS:
        return labels.reshape(shape)
    if kind not in _MOVES:
        return labels
    # Where each value of the input goes, so that nothing need be known of the operator's inverse.
    places = _run(node, torch.arange(math.prod(shape)).reshape(shape))
    return (
        torch.empty_like(places.flatten())
        .scatter(0, places.flatten(), labels.flatten())
        .reshape(shape)
    )


def vector(labels: Tensor, axis: int) -> Tensor | None:
    """The labels along one axis; None if they also differ along other axes.

    >>> vector(torch.tensor([[1, 2], [1, 2]]), 1), vector(torch.tensor([[1, 2], [3, 4]]), 1)
    (tensor([1, 2]), None)
    """
    # Along axes of stride 0 all are the same number in memory: large inputs are not gone through.
    for other, step in enumerate(labels.stride()):
        if not step:
            labels = labels.narrow(other, 0, min(1, labels.shape[other]))
    rows = labels.movedim(axis, -1).flatten(0, -2) if labels.dim() > 1 else labels[None]
    return rows[0] if len(rows) and bool((rows == rows[:1]).all()) else None


def _run(node: Node, x: Tensor) -> Any:
    target: Any = node.target
    return target(x, *node.args[1:], **node.kwargs)


def packet_of(node: Node) -> Any:
    """The operator, whatever its overload is."""
    return getattr(node.target, "overloadpacket", node.target)


def named_argument(node: Node, name: str, default: Any) -> Any:
    """An argument of `node`, given by position or by name."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    place = names.index(name)
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def told_of(node: Node, graph: Graph) -> str:
    """An operator and the module that runs it, in messages."""
    if node.op == "output":
        return "the model's output"
    if node.op == "placeholder":
        return "the model's input"
    module = graph.module_of(node)
    return kind_of(node) + (f" in {module!r}" if module else "")


def kind_of(node: Node) -> str:
    """The name of an operator, without its overload."""
    if node.op == "output":
        return "the model's output"
    packet = packet_of(node)
    return str(getattr(packet, "__name__", packet)).rstrip("_")


def _reads(user: Node, node: Node) -> bool:
    if packet_of(user) in _LIKE_SECOND:
        return user.args[0] is node
    return packet_of(user) not in _LIKE


def _shape(node: Node) -> Sequence[int]:
    shape: Sequence[int] = node.meta["val"].shape
    return shape
