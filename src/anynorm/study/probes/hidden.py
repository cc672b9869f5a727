"""Find the hidden units of a model: the inputs of its activations."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from anynorm.activations import ACTIVATIONS
from anynorm.nn import Activate
from anynorm.study.probes.layers import called, weight_layers
from anynorm.surgery import NORMALIZERS
from anynorm.surgery.snapshot import preserved

__all__ = ["activation_of", "hidden_layers", "pre_activations", "unit_axes"]

# The activations that our layers can fuse, and the others of torch.nn.
_ACTIVATIONS = (
    *(type(known.module()) for name, known in ACTIVATIONS.items() if name != "identity"),
    nn.CELU,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.LogSigmoid,
    nn.PReLU,
    nn.SELU,
    nn.Softplus,
    nn.Softsign,
)


def hidden_layers(model: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """Return the modules that apply an activation, by name, in order of execution.

    If the model has none, return its weight layers after the first, whose inputs are hidden too.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> list(hidden_layers(model, torch.randn(4, 2)))
    ['1']
    """
    modules = called(model, x)
    found = {name: module for name, module in modules.items() if activation_of(module)}
    return found or {layer.name: layer.module for layer in weight_layers(model, x)[1:]}


def activation_of(module: nn.Module) -> str:
    """Return the name of the activation that `module` itself applies; empty if there is none.

    >>> activation_of(nn.ReLU()), activation_of(Activate("tanh")), activation_of(nn.Linear(2, 2))
    ('relu', 'tanh', '')
    """
    if isinstance(module, _ACTIVATIONS):
        return type(module).__name__.lower()
    fused = getattr(module, "activation", None) if _fuses(module) else None
    # An activation that is a module is found separately.
    if fused in (None, "identity") or isinstance(fused, nn.Module):
        return ""
    return fused if isinstance(fused, str) else getattr(fused, "__name__", type(fused).__name__)


def unit_axes(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Return the axis of the units in the input of each module's first call on `x`, by name.

    It is the last axis after a linear layer or an embedding, and otherwise axis 1.

    >>> model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU(), nn.Linear(5, 4), nn.ReLU())
    >>> unit_axes(model, torch.randn(8, 2, 5))
    {'': 1, '0': 1, '1': 1, '2': 1, '3': -1}
    """
    axes, axis = {}, 1
    for name, module in called(model, x).items():
        axes[name] = axis
        if isinstance(module, (nn.Linear, nn.Embedding)):
            axis = -1
        elif isinstance(module, nn.modules.conv._ConvNd):
            axis = 1
    return axes


def pre_activations(model: nn.Module, names: Iterable[str], x: Tensor) -> dict[str, Tensor]:
    """Return the input of each named module's activation in its last call on `x`.

    If a module applies no activation, it is the module's input.
    """
    found: dict[str, Tensor] = {}
    # `preserved` removes the hooks at its end.
    with preserved(model), torch.no_grad():
        for name in names:
            model.get_submodule(name).register_forward_pre_hook(
                lambda module, args, name=name: found.update({name: _before(module, args[0])})
            )
        model(x)
    return found


def _fuses(module: nn.Module) -> bool:
    return isinstance(module, (Activate, *NORMALIZERS))


def _before(module: nn.Module, x: Tensor) -> Tensor:
    """Return the input of the activation of `module` for the module's input `x`."""
    if _fuses(module) and activation_of(module):
        module = copy.copy(module)
        module.activation = None  # type: ignore[assignment]
        x = module.forward(x)
    # A copy, since an in-place activation overwrites its input.
    return x.clone()
