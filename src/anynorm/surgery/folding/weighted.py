"""Convolutions and linear layers: their uses in a graph, and folding a map into their weights."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.fx import Node

from anynorm.errors import type_of
from anynorm.surgery.affine import Affine
from anynorm.surgery.folding.passthrough_ops import named_argument
from anynorm.surgery.graph import Graph
from anynorm.surgery.streaming_stats import double

__all__ = [
    "State",
    "Weighted",
    "absorb_before",
    "absorb_behind",
    "mapped_inputs",
    "pads",
    "product_kind",
]

_CONV = ("conv1d", "conv2d", "conv3d")
_KINDS = {
    "linear": "linear",
    **dict.fromkeys(_CONV, "convolution"),
    **{name.replace("conv", "conv_transpose"): "transposed convolution" for name in _CONV},
}
_LAYERS: dict[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,),
    "convolution": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "transposed convolution": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
}


def product_kind(node: Node) -> str | None:
    """The kind of product with a weight: linear, convolution or transposed convolution."""
    packet = getattr(node.target, "overloadpacket", None)
    return _KINDS.get(str(packet).removeprefix("aten.")) if packet is not None else None


def pads(node: Node) -> bool:
    """Whether a convolution pads its input with zeros; 'same' does, except with kernels of 1."""
    padding = named_argument(node, "padding", 0)
    if isinstance(padding, str):
        kernel = node.args[1].meta["val"].shape[2:]  # type: ignore[union-attr]
        return padding != "valid" and math.prod(kernel) > 1
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)


class State:
    """The parameters and buffers behind the nodes of a graph, which names tied ones only once."""

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.model, self.graph = model, graph

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        parameters = self.model.named_parameters(remove_duplicate=False)
        return {**dict(parameters), **dict(self.model.named_buffers(remove_duplicate=False))}

    @cached_property
    def _names(self) -> dict[Tensor, list[str]]:
        names: dict[Tensor, list[str]] = {}
        for name, tensor in self._tensors.items():
            names.setdefault(tensor, []).append(name)
        return names

    def of(self, node: Any) -> Tensor | None:
        """The parameter or buffer of `node`; None if it is something else."""
        name = self.graph.state(node)
        return None if name is None else self._tensors.get(name)

    def named(self, name: str) -> Tensor:
        """The parameter or buffer of that name."""
        return self._tensors[name]

    def owners(self, tensor: Tensor) -> list[nn.Module]:
        """The modules that hold `tensor`."""
        paths = (name.rpartition(".")[0] for name in self._names.get(tensor, []))
        return list(dict.fromkeys(map(self.model.get_submodule, paths)))

    def users(self, tensor: Tensor) -> list[Node]:
        """The operators that use `tensor`."""
        return [n for name in self._names.get(tensor, []) for n in self.graph.users.get(name, [])]

    def obstacle(self, name: str, allowed: Collection[Node]) -> str:
        """Why a parameter cannot be changed for these operators alone; "" if it can."""
        tensor = self.named(name)
        if not tensor.is_floating_point():
            return "is not floating-point"
        if len(owners := self.owners(tensor)) > 1:
            kinds = (type_of(owner) for owner in owners[:2])
            return f"is shared by {' and '.join(kinds)}"
        return "" if set(self.users(tensor)) <= set(allowed) else "is used elsewhere too"

    def module_of(self, node: Node) -> nn.Module:
        """The innermost module that runs `node`."""
        return self.model.get_submodule(self.graph.module_of(node))


@dataclass(frozen=True)
class Weighted:
    """One product of data with the weight of a layer."""

    node: Node
    kind: str
    layer: Any
    name: str

    @classmethod
    def at(cls, node: Node, state: State) -> Weighted | None:
        """The product that `node` computes; None if it is another operator."""
        kind = product_kind(node)
        if kind is None:
            return None
        return cls(node, kind, state.module_of(node), state.graph.module_of(node))

    @property
    def data(self) -> Any:
        """The data input."""
        return self.node.args[0]

    def channels(self, node: Node) -> int | None:
        """The axis of the channels in the input or output; None if there is no batch."""
        rank = node.meta["val"].dim()
        if self.kind == "linear":
            return int(rank) - 1
        return 1 if rank == self.node.args[1].meta["val"].dim() else None  # type: ignore[union-attr]

    @property
    def pads(self) -> bool:
        """Whether the input is zero-padded."""
        return self.kind != "linear" and pads(self.node)

    def obstacle(self, state: State, uses: list[Node]) -> str | None:
        """Why the weight and bias cannot be changed only for these `uses`; None if they can."""
        if not isinstance(self.layer, _LAYERS[self.kind]):
            kind = type_of(self.layer)
            return f"{self.told} belongs to {kind}, no layer of torch.nn"
        for position, name in ((1, "weight"), (2, "bias")):
            reason = self._parameter(state, position, name, uses)
            if reason is not None:
                return reason
        return None

    def _parameter(self, state: State, position: int, name: str, uses: list[Node]) -> str | None:
        own: Any = self.layer._parameters.get(name)
        given = named_argument(self.node, name, None) if position == 2 else self.node.args[position]
        direct = own is not None and state.of(given) is own
        if not direct:
            return f"the {name} of {self.told} is computed ({_spelled(given)}), not a parameter"
        if not own.is_floating_point():
            return f"the {name} of {self.told} is {_dtype(own)}"
        if others := [type(one).__name__ for one in state.owners(own) if one is not self.layer]:
            return f"the {name} of {self.told} is shared with a {others[0]}"
        if set(state.users(own)) != set(uses):
            return f"{self.told} is used elsewhere too, without this normalization"
        return None

    @property
    def told(self) -> str:
        """Its kind and its name."""
        return f"the {self.kind} {self.name!r}"


def _spelled(node: Any) -> str:
    return getattr(node, "name", str(node))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def absorb_behind(layer: Any, affine: Affine) -> tuple[Tensor, Tensor]:
    """The weight and the bias, in float64, of `layer` followed by a map of its outputs.

    >>> layer = nn.Linear(3, 2)
    >>> two = torch.full((2,), 2.0).double()
    >>> weight, _ = absorb_behind(layer, Affine(two, two))
    >>> torch.equal(weight, 2 * layer.weight.double())
    True
    """
    weight, a, b = double(layer.weight), affine.a, affine.b
    if isinstance(layer, _LAYERS["transposed convolution"]):
        # (inputs, outputs / groups, ...): each group of inputs has its own outputs.
        groups: Any = layer.groups
        grouped = weight.unflatten(0, (groups, -1))
        factors = a.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
        scaled = (grouped * factors).flatten(0, 1)
    else:
        scaled = weight * a.reshape(-1, *[1] * (weight.dim() - 1))
    return scaled, double(layer.bias) * a + b


def absorb_before(layer: Any, affine: Affine) -> tuple[Tensor, Tensor]:
    """The weight and the bias, in float64, of a map followed by `layer` (none that is transposed).

    >>> layer = nn.Conv2d(4, 6, 1, groups=2)
    >>> one = torch.ones(4).double()
    >>> weight, bias = absorb_before(layer, Affine(one, 0 * one))
    >>> torch.equal(weight, layer.weight.double()), torch.equal(bias, layer.bias.double())
    (True, True)
    """
    weight, shift = mapped_inputs(double(layer.weight), affine, getattr(layer, "groups", 1))
    return weight, double(layer.bias) + shift


def mapped_inputs(weight: Tensor, affine: Affine, groups: int = 1) -> tuple[Tensor, Tensor]:
    """The weight of a product whose inputs are mapped, and what the map adds to its outputs.

    Shape:
        - weight: (outputs, inputs / groups, ...)
        - affine: one a and one b for each input
    """
    grouped = weight.unflatten(0, (groups, -1))  # each group of outputs has its own inputs
    shape = (groups, 1, -1, *[1] * (weight.dim() - 2))
    shift = (grouped * affine.b.reshape(shape)).flatten(2).sum(dim=2).flatten()
    return (grouped * affine.a.reshape(shape)).flatten(0, 1), shift
