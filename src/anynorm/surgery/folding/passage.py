"""Operators that hand every value on, and where they put the axis of the channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Node

__all__ = ["axis_before", "axis_behind", "hands_on", "readers"]

_aten = torch.ops.aten
_VIEWS = {
    *(_aten.view, _aten.reshape, _aten.flatten, _aten.unflatten, _aten._unsafe_view),
    *(_aten.squeeze, _aten.unsqueeze, _aten.view_as, _aten.reshape_as),
    *(_aten.clone, _aten.contiguous, _aten.alias, _aten.detach),
}
_MOVES = {_aten.permute, _aten.transpose}
_DROPOUTS = {_aten.dropout, _aten.feature_dropout, _aten.alpha_dropout}
# These look at the shape of their second argument only, and those at nothing but shape and type.
_LIKE_SECOND = {_aten.view_as, _aten.reshape_as, _aten.expand_as}
_LIKE = {
    *(_aten._assert_tensor_metadata, _aten.sym_size),
    *(_aten.new_zeros, _aten.new_ones, _aten.new_full, _aten.new_empty),
    *(_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.empty_like),
}


def hands_on(node: Node) -> bool:
    """Whether `node` gives out the values of its first argument, each once, in any shape.

    Dropout does so in eval mode.
    """
    kind = _kind(node)
    if kind in _DROPOUTS:
        return not node.args[2]
    return kind in _VIEWS or kind in _MOVES


def readers(node: Node) -> list[Node]:
    """The operators that use the values of `node`, not only its shape or type."""
    return [user for user in node.users if _reads(user, node)]


def axis_behind(node: Node, axis: int) -> int | None:
    """The axis of what `node` puts out that is `axis` of what goes in; None if there is none."""
    if _kind(node) in _MOVES:
        return _order(node).index(axis)
    return _carried(_shape(node.all_input_nodes[0]), _shape(node), axis)


def axis_before(node: Node, axis: int) -> int | None:
    """The axis of what goes into `node` that is `axis` of what it puts out; None if there is none.

    >>> from anynorm.surgery.graph import capture
    >>> graph = capture(torch.nn.Flatten(0, 1), torch.zeros(2, 5, 3))
    >>> flatten = next(node for node in graph.nodes.nodes if hands_on(node))
    >>> axis_before(flatten, 1)
    2
    """
    if _kind(node) in _MOVES:
        return _order(node)[axis]
    return _carried(_shape(node), _shape(node.all_input_nodes[0]), axis)


def _kind(node: Node) -> object:
    return getattr(node.target, "overloadpacket", node.target)


def _reads(user: Node, node: Node) -> bool:
    if _kind(user) in _LIKE_SECOND:
        return user.args[0] is node
    return _kind(user) not in _LIKE


def _shape(node: Node) -> Sequence[int]:
    shape: Sequence[int] = node.meta["val"].shape
    return shape


def _order(node: Node) -> list[int]:
    """Which axis of the input each axis of the output is."""
    axes = list(range(len(_shape(node))))
    if _kind(node) is _aten.permute:
        return [axes[int(dim)] for dim in node.args[1]]  # type: ignore[arg-type, union-attr]
    one, other = (axes[int(dim)] for dim in node.args[1:3])  # type: ignore[arg-type]
    axes[one], axes[other] = other, one
    return axes


def _carried(source: Sequence[int], target: Sequence[int], axis: int) -> int | None:
    """The values keep their order: an axis stays one where as many lie before it and inside it."""
    before = math.prod(source[:axis])
    fitting = (
        place
        for place, size in enumerate(target)
        if size == source[axis] and math.prod(target[:place]) == before
    )
    return next(fitting, None)
