"""The layers of a model in the order in which a forward pass reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.surgery import NORMALIZERS
from anynorm.surgery.snapshot import preserved

__all__ = ["WeightLayer", "called", "multiplications", "weight_layers"]


@dataclass(frozen=True)
class WeightLayer:
    """A layer with a weight matrix, and everything that acts before it.

    A normalization has no weight matrix: its γ and β belong to what comes before the next weight
    layer. A weight shared with an earlier layer is counted as this layer's own.
    """

    name: str
    module: nn.Module
    parameters: tuple[nn.Parameter, ...]
    before: tuple[nn.Parameter, ...]

    @property
    def weights(self) -> tuple[nn.Parameter, ...]:
        """The layer's parameters without its biases."""
        return tuple(parameter for parameter in self.parameters if parameter.ndim >= 2)


def weight_layers(model: nn.Module, x: Tensor) -> list[WeightLayer]:
    """Return the trainable weight layers that a forward pass on `x` reaches, first call first.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))
    >>> [layer.name for layer in weight_layers(model, torch.randn(4, 2))]
    ['0', '3']
    """
    modules = called(model, x)
    layers: list[WeightLayer] = []
    before: list[nn.Parameter] = []
    for name, module in modules.items():
        own = tuple(p for p in _own(module, set(modules.values())) if p.requires_grad)
        if not isinstance(module, NORMALIZERS) and any(p.ndim >= 2 for p in own):
            others = tuple(p for p in before if all(p is not mine for mine in own))
            layers.append(WeightLayer(name, module, own, others))
        before.extend(own)
    return layers


def called(model: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """Return the modules that a forward pass on `x` calls, by name, in order of the first call."""
    order: dict[str, nn.Module] = {}
    # Leaving `preserved` takes the hooks away too.
    with preserved(model), torch.no_grad():
        for name, module in model.named_modules():
            if "parametrizations" not in name.split("."):
                module.register_forward_pre_hook(
                    lambda module, _, name=name: order.update({name: module})
                )
        model(x)
    return order


def multiplications(model: nn.Module, x: Tensor) -> int:
    """Return about how many multiplications by weights a forward pass takes for each sample.

    >>> multiplications(nn.Conv1d(2, 3, kernel_size=1), torch.randn(4, 2, 10))
    60
    """
    total = 0

    def count(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal total
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 2 and isinstance(output, Tensor):
            # Each output value takes as many as there are weights to one output channel.
            total += output.numel() * weight[0].numel() // len(x)

    with preserved(model), torch.no_grad():
        for module in model.modules():
            module.register_forward_hook(count)
        model(x)
    return total


def _own(module: nn.Module, called: set[nn.Module]) -> Iterator[nn.Parameter]:
    """Yield the parameters that `module` itself applies.

    A module with parameters may apply its children's too without calling them, as
    MultiheadAttention does and as parametrized weights are.
    """
    own = list(module.parameters(recurse=False))
    yield from own
    for name, child in module.named_children():
        if name == "parametrizations" or (own and child not in called):
            yield from child.parameters()
