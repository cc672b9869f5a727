"""φ, the last step of the formula: the activations that an operator can fuse, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from anynorm.errors import UnknownNameError
from anynorm.phi import LEAK

__all__ = ["ACTIVATIONS", "Activation", "activation"]

_aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """φ and its vector-Jacobian product, both differentiable.

    Args:
        forward: φ.
        backward: ``backward(dy, z) = dy · φ'(z)``.

    Example:
        >>> relu = activation("relu")
        >>> relu.backward(torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 2.0]))
        tensor([0., 1.])
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


def _silu_backward(dy: Tensor, z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return dy * gate * (1 + z * (1 - gate))


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda z: z, lambda dy, _: dy),
    "relu": Activation(F.relu, lambda dy, z: torch.where(z <= 0, 0.0, dy)),
    "leaky_relu": Activation(
        lambda z: F.leaky_relu(z, LEAK), lambda dy, z: torch.where(z > 0, dy, LEAK * dy)
    ),
    "silu": Activation(F.silu, _silu_backward),
    "gelu": Activation(F.gelu, _aten.gelu_backward),
    "tanh": Activation(torch.tanh, lambda dy, z: dy * (1 - torch.tanh(z) ** 2)),
    "sigmoid": Activation(
        torch.sigmoid, lambda dy, z: dy * torch.sigmoid(z) * (1 - torch.sigmoid(z))
    ),
}


def activation(name: str) -> Activation:
    """Look an activation up by name.

    Args:
        name: a key of ``ACTIVATIONS``.

    Returns:
        The activation.

    Raises:
        UnknownNameError: There is no activation of that name; the nearest is suggested.

    Example:
        >>> activation("relu").forward(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]
