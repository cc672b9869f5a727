"""The forward of each module as a graph of torch.fx, in which the modules inside are calls."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, Node

from anynorm.surgery.fusing.observe_calls import Called
from anynorm.surgery.fusing.tracer import BlockTracer
from anynorm.surgery.refused import Refused
from anynorm.surgery.walk import walk

__all__ = ["Blocks", "Traced"]


@dataclass(frozen=True)
class Traced:
    """The graph of a module's forward, and the module with a name of its own for each child."""

    root: nn.Module
    graph: Graph

    def calls(self, name: str) -> list[Node]:
        """The calls of the module with this name."""
        return [n for n in self.graph.nodes if n.op == "call_module" and n.target == name]

    def module(self, node: Node) -> nn.Module | None:
        """The module that a node calls; None if it calls something else."""
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else None


class Blocks:
    """The modules of a model, how they are called, and the graphs of their forwards."""

    def __init__(self, model: nn.Module, calls: Mapping[nn.Module, Called]) -> None:
        self.model, self.calls = model, calls
        self.names = {place.module: place.names for place in walk(model)}
        self._traced: dict[nn.Module, Traced | Refused] = {}

    def traced(self, block: nn.Module) -> Traced:
        """The graph for the shapes of the example; raises `Refused` if it depends on values."""
        if block not in self._traced:
            try:
                self._traced[block] = self._trace(block, (), shaped=True)
            except Refused as reason:
                self._traced[block] = reason
        found = self._traced[block]
        if isinstance(found, Refused):
            raise Refused(f"{self.told(block)}: {found}")
        return found

    def general(self, block: nn.Module, opened: Collection[str]) -> Traced:
        """The graph for any shapes, with the forwards of the modules `opened` inside.

        Raises `Refused` if it depends on shapes or values.
        """
        self.calls[block].need_tensors()
        return self._trace(block, opened, shaped=False)

    def owner(self, name: str) -> tuple[nn.Module, str]:
        """The innermost module around `name` that is called, and the name inside."""
        above, inside = name, ""
        while above:
            above, _, last = above.rpartition(".")
            inside = f"{last}.{inside}" if inside else last
            block = self.model.get_submodule(above)
            if self.calls[block].count:
                return block, inside
        raise Refused("no module that is called on the example contains it")

    def told(self, block: nn.Module) -> str:
        """The class and name of a module, in words."""
        name = self.names[block][0]
        return f"{type(block).__name__} {name!r}" if name else type(block).__name__

    def _trace(self, block: nn.Module, opened: Collection[str], *, shaped: bool) -> Traced:
        root = _with_own_children(block)
        parts = [root, *(root.get_submodule(name) for name in opened)]
        given = self.calls[block].given
        if given is None:
            raise Refused("its arguments have no names")
        if "forward" in vars(block):
            raise Refused("its forward is not that of its class")
        graphs = []
        for training in (True, False):
            tracer = BlockTracer(given, opened, self.calls, shaped)
            with _in_mode(parts, training):
                try:
                    graphs.append(tracer.trace(root))
                except Exception as error:
                    said = re.split(r"\. |\n", str(error).strip())[0]
                    raise Refused(f"torch.fx cannot trace its forward: {said}") from error
        one, other = map(_operators if shaped else _code, graphs)
        if one != other:
            raise Refused("its forward runs other operators in training than in evaluation")
        return Traced(root, graphs[0])


def _code(graph: Graph) -> Any:
    return graph.python_code("self").src


def _operators(graph: Graph) -> Any:
    return [(n.op, n.target, [i.name for i in n.all_input_nodes]) for n in graph.nodes]


def _with_own_children(block: nn.Module) -> nn.Module:
    """A shallow copy in which a child with several names is a module of its own for each.

    So the graph says by which of them it is called.
    """
    root, seen = copy.copy(block), set()
    children: dict[str, nn.Module | None] = {}
    for name, child in block._modules.items():
        children[name] = copy.copy(child) if child in seen else child
        seen.add(child)
    root.__dict__["_modules"] = children
    return root


@contextmanager
def _in_mode(modules: Collection[nn.Module], training: bool) -> Iterator[None]:
    modes = [(module, module.training) for module in modules]
    try:
        for module in modules:
            module.training = training
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
