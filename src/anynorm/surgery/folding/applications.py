"""Where a graph applies a normalizer: the data that goes in, and the operators around it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from anynorm.surgery.folding.passage import axis_before, axis_behind, hands_on, readers
from anynorm.surgery.folding.weighted import State, Weighted
from anynorm.surgery.graph import Call
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refused import Refused
from anynorm.surgery.successor import hooked

__all__ = ["Application", "applications", "layer_before", "layer_behind"]


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


def applications(norm: Normalizer, state: State) -> list[Application]:
    """Every use of `norm`; raises `Refused` where there is none or it cannot be understood."""
    calls = [call for name in norm.place.names for call in state.graph.calls.get(name, ())]
    if not calls:
        raise Refused("the example does not reach it")
    return [_application(norm, call, state) for call in calls]


def _application(norm: Normalizer, call: Call, state: State) -> Application:
    _check_private(norm, state)
    core = next((node for node in call.nodes if _normalizes(node, norm, state)), None)
    residual = len(call.inputs) > 1
    if core is not None:
        data = core.all_input_nodes[0]
        return Application(data, core, core, residual, call.outputs == (core,))
    # Written as arithmetic, as frozen batch norms of constants are.
    data, entries = call.inputs[0], [n for n in readers(call.inputs[0]) if n in call.nodes]
    if residual or hooked(norm.module) or len(entries) != 1 or len(call.outputs) != 1:
        raise Refused("its operators are not those of a plain normalization")
    return Application(data, entries[0], call.outputs[0], False, True)


def _normalizes(node: Node, norm: Normalizer, state: State) -> bool:
    """Whether `node` is the operator that normalizes by the running statistics of `norm`."""
    data = node.args[0] if node.args else None
    if not isinstance(data, Node) or "norm" not in str(node.target):
        return False
    return any(state.of(one) is norm.module.running_mean for one in node.all_input_nodes)


def _check_private(norm: Normalizer, state: State) -> None:
    """Raise if others read what disappears with the normalizer."""
    held = [*norm.module._parameters.values(), *norm.module._buffers.values()]
    for tensor in (one for one in held if isinstance(one, Tensor)):
        owners = state.owners(tensor)
        if strange := [n for n in state.users(tensor) if state.module_of(n) not in owners]:
            reader = state.graph.module_of(strange[0])
            raise Refused(f"its parameters or statistics are read by {reader!r} too")


def layer_before(application: Application, state: State) -> Weighted:
    """The layer whose outputs are the channels that are normalized; raises `Refused`."""
    axis: int | None = 1
    node, reader = application.data, application.entry
    while True:
        _check_read_only_by(reader, node)
        if not hands_on(node):
            break
        axis = None if axis is None else axis_before(node, axis)
        node, reader = node.all_input_nodes[0], node
    layer = Weighted.at(node, state)
    if layer is None:
        raise Refused(f"its input comes from {_told(node, state)}")
    _check_channels(layer, axis, node)
    return layer


def layer_behind(application: Application, state: State) -> Weighted:
    """The layer whose inputs are the channels that were normalized; raises `Refused`."""
    axis: int | None = 1
    node = application.exit
    while True:
        reader = _only_reader(node, state)
        if not hands_on(reader):
            break
        axis = None if axis is None else axis_behind(reader, axis)
        node = reader
    layer = Weighted.at(reader, state)
    if layer is None or layer.data is not node:
        raise Refused(f"its output goes to {_told(reader, state)}")
    _check_channels(layer, axis, node)
    return layer


def _check_read_only_by(reader: Node, node: Node) -> None:
    others = [other for other in readers(node) if other is not reader]
    if others or _times(reader, node) > 1:
        raise Refused(f"what it normalizes is used by {_kind(others[0] if others else reader)} too")


def _only_reader(node: Node, state: State) -> Node:
    found = readers(node)
    if len(found) != 1 or _times(found[0], node) > 1:
        several = " and ".join(_told(one, state) for one in found[:2])
        raise Refused(f"its output goes to {several or 'nothing'}")
    return found[0]


def _times(reader: Node, node: Node) -> int:
    return sum(argument is node for argument in (*reader.args, *reader.kwargs.values()))


def _check_channels(layer: Weighted, axis: int | None, node: Node) -> None:
    if axis is None or axis != layer.channels(node):
        where = "last axis" if layer.kind == "linear" else "axis 1 of a batch"
        raise Refused(f"its channels are not those of {layer.told}, which are the {where} there")


def _told(node: Node, state: State) -> str:
    """An operator and the module that runs it."""
    if node.op == "output":
        return "the model's output"
    if node.op == "placeholder":
        return "the model's input"
    module = state.graph.module_of(node)
    return _kind(node) + (f" in {module!r}" if module else "")


def _kind(node: Node) -> str:
    if node.op == "output":
        return "the model's output"
    target = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(target, "__name__", target)).rstrip("_")
