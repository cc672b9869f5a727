"""The operators that a model runs on an example, with their modules, parameters and buffers."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Graph as FxGraph
from torch.fx import Node

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, applied, call, device_of, leaves_of, moved
from anynorm.surgery.modes import evaluating

__all__ = ["Graph", "ModuleCall", "capture", "first_names"]

_MODEL = "model"  # the wrapper's name for the model, which export puts before every name


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module: its operators, its input data, and the outputs that others use."""

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


@dataclass(frozen=True)
class Graph:
    """The operators of a model in eval mode, as :func:`torch.export.export` finds them.

    The names of parameters, buffers and modules are the model's own; tied ones have the first name.
    `numbers` are the whole numbers in the attributes of each module that its forward names.
    """

    program: ExportedProgram
    example: Batch
    first_names: Mapping[str, str]
    numbers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def nodes(self) -> FxGraph:
        """The operators in order of execution."""
        graph: FxGraph = self.program.graph
        return graph

    @cached_property
    def names(self) -> dict[str, str]:
        """The parameter or buffer behind the name of a placeholder."""
        signature = self.program.graph_signature
        state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        plain = {node: _plain(name) for node, name in state.items()}
        return {node: self.first_names.get(name, name) for node, name in plain.items()}

    @cached_property
    def users(self) -> dict[str, list[Node]]:
        """The operators that use each parameter or buffer."""
        states = [node for node in self.nodes.nodes if node.name in self.names]
        return {self.names[node.name]: list(node.users) for node in states}

    @cached_property
    def constants(self) -> frozenset[str]:
        """The placeholders that are not data of the example."""
        lifted = self.program.graph_signature.inputs_to_lifted_tensor_constants
        return frozenset(self.names) | frozenset(lifted)

    def state(self, node: Any) -> str | None:
        """The name of the parameter or buffer that `node` is; None if it is something else."""
        return self.names.get(node.name) if isinstance(node, Node) else None

    def is_data(self, node: Node) -> bool:
        """Whether `node` is neither a parameter nor a buffer nor a constant."""
        return node.op != "get_attr" and node.name not in self.constants

    def module_of(self, node: Node) -> str:
        """The name of the innermost module that runs `node`."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return _plain(stack[-1][0]) if stack else ""

    @cached_property
    def calls(self) -> dict[str, list[ModuleCall]]:
        """The calls of every module, in order of execution."""
        groups: dict[tuple[str, str], list[Node]] = {}
        for node in self.nodes.nodes:
            for key, (name, _) in (node.meta.get("nn_module_stack") or {}).items():
                groups.setdefault((key, _plain(name)), []).append(node)
        found: dict[str, list[ModuleCall]] = {}
        for (_, name), nodes in groups.items():
            found.setdefault(name, []).append(self._call(name, nodes))
        return found

    def _call(self, name: str, nodes: list[Node]) -> ModuleCall:
        inside = set(nodes)
        used = dict.fromkeys(one for node in nodes for one in node.all_input_nodes)
        data = [node for node in used if node not in inside and self.is_data(node)]
        outputs = [node for node in nodes if any(user not in inside for user in node.users)]
        return ModuleCall(name, tuple(nodes), tuple(data), tuple(outputs))


class _Called(nn.Module):
    """A wrapper that calls a model on a batch, for export; it returns every output tensor."""

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        super().__init__()
        self.model, self._forward = model, forward

    def forward(self, batch: Batch) -> list[Tensor]:
        output = applied(self.model, batch, self._forward)
        return [leaf for leaf in leaves_of(output) if isinstance(leaf, Tensor)]


def capture(model: nn.Module, example: Batch, forward: Forward | None = None) -> Graph:
    """Trace `model` in eval mode on `example`; raises `AnynormError` if that is not possible.

    >>> graph = capture(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.zeros(4, 3))
    >>> list(graph.calls)
    ['', '0', '1']
    >>> graph.users["0.weight"]
    [linear]
    """
    scripted = (n for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule))
    if (name := next(scripted, None)) is not None:
        part = f"the layer {name!r}" if name else "the model"
        raise AnynormError(
            f"{part} is in TorchScript, which torch.export cannot trace. Give the model from which "
            "it was made."
        )
    batch = moved(example, device_of(model))
    with evaluating(model), _quiet():
        call(model, batch, forward)  # its errors say more about the batch than those of export
        try:
            program = torch.export.export(_Called(model, forward).eval(), (batch,))
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise AnynormError(
                f"torch.export cannot trace {type(model).__name__}: {type(error).__name__}: "
                f"{reason}. The operators that run must not depend on values of the input."
            ) from error
    numbers = {name: _numbers(module) for name, module in model.named_modules()}
    return Graph(program, batch, first_names(model), numbers)


def _numbers(module: nn.Module) -> dict[str, int]:
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    named = () if code is None else code.co_names
    return {name: value for name in named if type(value := vars(module).get(name)) is int}


def first_names(model: nn.Module) -> dict[str, str]:
    """The first name of each parameter and buffer, by all its names.

    >>> layer = nn.Linear(2, 2)
    >>> first_names(nn.Sequential(layer, layer))["1.weight"]
    '0.weight'
    """
    found: dict[Tensor, str] = {}
    state = (model.named_parameters, model.named_buffers)
    pairs = [pair for names in state for pair in names(remove_duplicate=False)]
    return {name: found.setdefault(tensor, name) for name, tensor in pairs}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of models during tracing, and graphs that torch prints when it fails."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _plain(name: str) -> str:
    """The model's own name of a module or of its state."""
    return "" if name == _MODEL else name.removeprefix(f"{_MODEL}.")
