"""Where a graph uses a normalizer: its input, and the operators around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from anynorm.surgery.folding.passthrough_ops import (
    hands_on,
    kind_of,
    labels_before,
    labels_behind,
    readers,
    told_of,
    vector,
)
from anynorm.surgery.folding.weighted import State, Weighted
from anynorm.surgery.graph import ModuleCall
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refused import Refused
from anynorm.surgery.transfer_hooks import hooked

__all__ = ["Application", "Neighbour", "applications", "layer_before", "layer_behind"]


@dataclass(frozen=True)
class Application:
    """One use of a normalizer.

    `data` goes into the operator `entry`, and `exit` is what that puts out, before any residual or
    activation; `plain` where nothing follows inside the layer.
    """

    data: Node
    entry: Node
    exit: Node
    residual: bool
    plain: bool


@dataclass(frozen=True)
class Neighbour:
    """A layer before or after a normalizer, with the channel of each of its outputs or inputs."""

    layer: Weighted
    channels: Tensor


def applications(norm: Normalizer, state: State) -> list[Application]:
    """Every use of `norm`; raises `Refused` if there is none or it cannot be understood."""
    calls = [call for name in norm.place.names for call in state.graph.calls.get(name, ())]
    if not calls:
        raise Refused("the example does not reach it")
    return [_application(norm, call, state) for call in calls]


def _application(norm: Normalizer, call: ModuleCall, state: State) -> Application:
    _check_private(norm, state)
    core = next((node for node in call.nodes if _normalizes(node, norm, state)), None)
    residual = len(call.inputs) > 1
    if core is not None:
        data = core.all_input_nodes[0]
        return Application(data, core, core, residual, _ends(call, core))
    # Written as arithmetic, as frozen batch norms of constants are.
    data, entries = call.inputs[0], [n for n in readers(call.inputs[0]) if n in call.nodes]
    single = len(entries) == 1 and len(call.outputs) == 1
    if residual or hooked(norm.module) or not norm.constant or not single:
        raise Refused("its operators are not those of a plain normalization")
    return Application(data, entries[0], call.outputs[0], False, True)


def _normalizes(node: Node, norm: Normalizer, state: State) -> bool:
    """Whether `node` is the operator that normalizes with the running statistics of `norm`."""
    data = node.args[0] if node.args else None
    if not isinstance(data, Node) or "norm" not in str(node.target):
        return False
    mean = norm.layer.running_mean
    return any(state.of(_origin(one)) is mean for one in node.all_input_nodes[1:])


def _origin(node: Node) -> Node:
    """The tensor of which a tensor is a view."""
    while hands_on(node):
        node = node.all_input_nodes[0]
    return node


def _ends(call: ModuleCall, core: Node) -> bool:
    """Whether the rest of the layer does not change values."""
    return len(call.outputs) == 1 and _origin(call.outputs[0]) is core


def _check_private(norm: Normalizer, state: State) -> None:
    """Raise `Refused` if others use a tensor that disappears with the normalizer."""
    held = [*norm.module._parameters.values(), *norm.module._buffers.values()]
    for tensor in (one for one in held if isinstance(one, Tensor)):
        owners = state.owners(tensor)
        if strange := [n for n in state.users(tensor) if state.module_of(n) not in owners]:
            reader = state.graph.module_of(strange[0])
            raise Refused(f"its parameters or statistics are read by {reader!r} too")


def layer_before(application: Application, state: State) -> Neighbour:
    """The layer whose outputs are normalized, each with one channel; raises `Refused`."""
    node, reader = application.data, application.entry
    labels = _labels(node)
    while True:
        _check_read_only_by(reader, node)
        if not hands_on(node):
            break
        labels = labels_before(node, labels)
        node, reader = node.all_input_nodes[0], node
    layer = Weighted.at(node, state)
    if layer is None:
        raise Refused(f"its input comes from {told_of(node, state.graph)}")
    return _neighbour(layer, labels, node)


def layer_behind(application: Application, state: State) -> Neighbour:
    """The layer whose inputs were normalized, each with one channel; raises `Refused`."""
    node = application.exit
    labels = _labels(node)
    while True:
        reader = _only_reader(node, state)
        if not hands_on(reader):
            break
        labels = labels_behind(reader, labels)
        node = reader
    layer = Weighted.at(reader, state)
    if layer is None or layer.data is not node:
        raise Refused(f"its output goes to {told_of(reader, state.graph)}")
    return _neighbour(layer, labels, node)


def _labels(node: Node) -> Tensor:
    """The channel of each value in the normalizer's input: its index on axis 1."""
    shape = node.meta["val"].shape
    return torch.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2)).expand(shape)


def _check_read_only_by(reader: Node, node: Node) -> None:
    others = [other for other in readers(node) if other is not reader]
    if others or _times(reader, node) > 1:
        raise Refused(
            f"what it normalizes is used by {kind_of(others[0] if others else reader)} too"
        )


def _only_reader(node: Node, state: State) -> Node:
    found = readers(node)
    if len(found) != 1 or _times(found[0], node) > 1:
        several = " and ".join(told_of(one, state.graph) for one in found[:2])
        raise Refused(f"its output goes to {several or 'nothing'}")
    return found[0]


def _times(reader: Node, node: Node) -> int:
    return sum(argument is node for argument in (*reader.args, *reader.kwargs.values()))


def _neighbour(layer: Weighted, labels: Tensor, node: Node) -> Neighbour:
    axis = layer.channels(node)
    channels = None if axis is None else vector(labels, axis)
    if channels is None:
        where = "last axis" if layer.kind == "linear" else "axis 1 of a batch"
        raise Refused(
            f"its channels are not those of {layer.told}, which are the {where} there: values of "
            "several channels come from one of them or go to one"
        )
    return Neighbour(layer, channels)
