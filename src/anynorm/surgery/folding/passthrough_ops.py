"""Operators that only rearrange values, and where they put the values of each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

__all__ = ["hands_on", "labels_before", "labels_behind", "readers", "vector"]

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
    kind = _kind(node)
    if kind in _DROPOUTS:
        return not node.args[2]
    return kind in _COPIES | _VIEWS | _MOVES


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
    kind = _kind(node)
    if kind in _VIEWS:
        return labels.reshape(_shape(node))
    return _run(node, labels) if kind in _MOVES else labels


def labels_before(node: Node, labels: Tensor) -> Tensor:
    """Return the channel of each input value of `node`, from the channels of its output values.

    >>> from anynorm.surgery.graph import capture
    >>> graph = capture(torch.nn.Unflatten(1, (2, 3)), torch.zeros(5, 6))
    >>> unflatten = next(node for node in graph.nodes.nodes if hands_on(node))
    >>> labels_before(unflatten, torch.arange(2)[:, None].expand(5, 2, 3))[0]
    tensor([0, 0, 0, 1, 1, 1])
    """
    kind, shape = _kind(node), _shape(node.all_input_nodes[0])
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


def _run(node: Node, x: Tensor) -> Tensor:
    target: Any = node.target
    moved: Tensor = target(x, *node.args[1:], **node.kwargs)
    return moved


def _kind(node: Node) -> object:
    return getattr(node.target, "overloadpacket", node.target)


def _reads(user: Node, node: Node) -> bool:
    if _kind(user) in _LIKE_SECOND:
        return user.args[0] is node
    return _kind(user) not in _LIKE


def _shape(node: Node) -> Sequence[int]:
    shape: Sequence[int] = node.meta["val"].shape
    return shape
