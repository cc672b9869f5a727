"""The constants of channels with γ = 0 in front of each layer, recorded on the example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves

from anynorm.surgery.channels import Channels, Use
from anynorm.surgery.channels.labels import dense_arguments
from anynorm.surgery.graph import Graph

__all__ = ["Constant", "among", "input_constants", "reading", "reads", "state_of"]


class Constant(NamedTuple):
    """The mean of each input channel of a layer, and its range, which is 0 for a constant."""

    mean: Tensor
    spread: Tensor


def input_constants(
    graph: Graph, channels: Channels, state: Mapping[str, Tensor], silent: Iterable[int]
) -> dict[Node, Constant]:
    """The input channels of each layer when the channels `silent` have γ = 0."""
    zeros = {}
    for name in channels.scales:
        gone = among(channels.sites[name, 0], silent).to(state[name].device)
        zeros[name] = state[name].masked_fill(gone, 0)
    recorded = _Recorded(graph, channels.uses)
    recorded.run(*_arguments(graph, {**state, **zeros}))
    return recorded.found


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def among(labels: Tensor, channels: Iterable[int]) -> Tensor:
    """Where labels are of these channels."""
    return torch.isin(labels, torch.tensor(sorted(channels), dtype=torch.int64))


def reads(use: Use) -> tuple[str, int]:
    """The axis of a layer's weight that multiplies its inputs."""
    return use.weight, 0 if use.transposed else 1


def reading(channels: Channels) -> list[list[Use]]:
    """The uses of each weight that reads channels."""
    found: dict[str, list[Use]] = {}
    for use in channels.uses:
        if reads(use) in channels.readers:
            found.setdefault(use.weight, []).append(use)
    return list(found.values())


class _Recorded(Interpreter):
    """Runs the graph and keeps each input channel's mean and range, for the given operators."""

    def __init__(self, graph: Graph, uses: tuple[Use, ...]) -> None:
        super().__init__(graph.program.graph_module)
        self._axes = {use.node: use.channel_axis for use in uses}
        self.found: dict[Node, Constant] = {}

    def run_node(self, n: Node) -> Any:
        if n in self._axes:
            x = self.fetch_args_kwargs_from_env(n)[0][dense_arguments(n)[0]]
            rows = x.double().movedim(self._axes[n], 0).flatten(1)
            self.found[n] = Constant(rows.mean(1), rows.amax(1) - rows.amin(1))
        return super().run_node(n)


def _arguments(graph: Graph, state: Mapping[str, Tensor]) -> list[Any]:
    """The values of the graph's placeholders, in order."""
    data = iter(tree_leaves(graph.example))
    found: list[Any] = []
    for spec in graph.program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            found.append(next(data))
        elif (name := graph.names.get(spec.arg.name)) is not None:
            found.append(state[name])
        else:
            found.append(graph.program.constants[str(spec.target)])
    return found
