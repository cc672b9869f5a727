"""Add the constants of cut channels to the layers that read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves

from anynorm.surgery.channels import Channels, Use
from anynorm.surgery.channels.labels import dense_arguments
from anynorm.surgery.graph import Graph
from anynorm.surgery.prune.constants import Constants
from anynorm.surgery.receipt import Log

__all__ = ["absorb"]

State = Mapping[str, Tensor]
Constant = tuple[Tensor, Tensor]  # the mean of each channel, and its range

_NO_CONSTANT = "nothing: no layer gets a constant other than 0 from the cut channels"
_BORDERS = "except at zero-padded borders"
_DIFFERS = "on average, since the constant varies"


@torch.no_grad()
def absorb(
    model: nn.Module, graph: Graph, channels: Channels, cut: set[int], log: Log
) -> tuple[str, ...]:
    """Add to each layer the constants of its `cut` inputs; return the layers with new biases.

    A channel with γ = 0 has the constant value φ(β), so its contribution to a layer's output is
    constant too, except at zero-padded borders.  If a batch norm follows the layer, the constant is
    subtracted from its running mean, otherwise it is added to the layer's bias.
    """
    state = dict(_state(model))
    inputs = _inputs(graph, channels, {**state, **_silenced(channels, state, cut)})
    given = _Given(model, graph, log)
    for weight, uses in _by_weight(channels).items():
        reads = (weight, 0 if uses[0].transposed else 1)
        if reads in channels.readers:
            gone = _among(channels.sites[reads], cut)
            given.take([_Shift.of(use, state[weight], inputs[use.node], gone) for use in uses])
    return given.added()


def _state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _silenced(channels: Channels, state: State, cut: set[int]) -> State:
    """Each γ with zeros for the channels that are cut."""
    found = {}
    for name in channels.scales:
        gone = _among(channels.sites[name, 0], cut).to(state[name].device)
        found[name] = state[name].masked_fill(gone, 0)
    return found


def _among(labels: Tensor, cut: set[int]) -> Tensor:
    return torch.isin(labels, torch.tensor(sorted(cut), dtype=torch.int64))


def _by_weight(channels: Channels) -> dict[str, list[Use]]:
    found: dict[str, list[Use]] = {}
    for use in channels.uses:
        found.setdefault(use.weight, []).append(use)
    return found


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
            self.found[n] = rows.mean(1), rows.amax(1) - rows.amin(1)
        return super().run_node(n)


def _inputs(graph: Graph, channels: Channels, state: State) -> dict[Node, Constant]:
    recorded = _Recorded(graph, channels.uses)
    recorded.run(*_arguments(graph, state))
    return recorded.found


def _arguments(graph: Graph, state: State) -> list[Any]:
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


@dataclass(frozen=True)
class _Shift:
    """The contribution of the cut inputs to each output of a layer, and whether it varies."""

    use: Use
    value: Tensor
    varies: bool

    @classmethod
    def of(cls, use: Use, weight: Tensor, constant: Constant, gone: Tensor) -> _Shift:
        taps = _taps(use, weight.detach().double())
        gone = gone.to(taps.device)
        mean, spread = (_by_group(use, part) * _by_group(use, gone) for part in constant)
        silent = mean.abs().max() if mean.numel() else mean.sum()
        return cls(use, (taps @ mean[..., None]).flatten(), bool((spread > 1e-5 * silent).any()))


def _by_group(use: Use, inputs: Tensor) -> Tensor:
    """Values of the inputs as (groups, inputs of each); shared values are one row."""
    shared = not use.transposed and inputs.dtype == torch.bool
    return inputs[None] if shared else inputs.reshape(use.groups, -1)


def _taps(use: Use, weight: Tensor) -> Tensor:
    """The contribution of a constant input of 1 to each output: (groups, outputs, inputs)."""
    taps = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    taps = taps.reshape(use.groups, -1, taps.shape[1])
    # The phases of a stride use different taps: this is their average.
    return taps.mT / math.prod(_steps(use)) if use.transposed else taps


def _steps(use: Use) -> list[int]:
    """The stride along each axis of positions."""
    rank = len(use.shape) - 2
    stride: Any = use.node.args[3] if len(use.node.args) > 3 else 1
    steps = [stride] if isinstance(stride, int) else list(stride)
    return steps * rank if len(steps) == 1 else steps


def _padded(use: Use) -> bool:
    padding: Any = use.node.args[4] if len(use.node.args) > 4 else 0
    return padding not in (0, "valid") and padding != [0] * len(list(padding))


class _Given:
    """Adds the constants of cut channels to layers, and notes where that is not exact."""

    def __init__(self, model: nn.Module, graph: Graph, log: Log) -> None:
        self._constants = Constants(model, graph, log)
        self._graph, self._log = graph, log
        self._notes: dict[str, list[str]] = {"exactly": [], _BORDERS: [], _DIFFERS: []}

    def take(self, shifts: list[_Shift]) -> None:
        """Add the constants for the uses of one weight; several uses get the mean."""
        values = torch.stack([shift.value for shift in shifts])
        if not bool(values.any()):
            return
        use, layer = shifts[0].use, self._graph.module_of(shifts[0].use.node)
        apart = bool((values - values[:1]).abs().max() > 1e-5 * values.abs().max())
        varies = apart or any(shift.varies for shift in shifts)
        uneven = use.transposed and math.prod(_steps(use)) > 1
        how = _DIFFERS if varies or uneven else _BORDERS if _padded(use) else "exactly"
        self._notes[how].append(layer or "the model")
        self._constants.add([shift.use for shift in shifts], values.mean(0))

    def added(self) -> tuple[str, ...]:
        """Log how exact it was; return the layers with new biases."""
        said = [f"{how}: {', '.join(layers)}" for how, layers in self._notes.items() if layers]
        self._log.facts["absorbed"] = "; ".join(said) or _NO_CONSTANT
        return tuple(self._constants.biases)
