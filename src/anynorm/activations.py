"""φ, the last step of the formula: the activations that an operator can fuse, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anynorm.errors import UnknownNameError
from anynorm.phi import LEAK

__all__ = ["ACTIVATIONS", "Activation", "activation"]

_aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An activation φ and its properties; forward and backward are differentiable.

    Args:
        forward: φ(z).
        backward: The vector-Jacobian product ``backward(dy, z) = dy · φ'(z)``.
        module: Builds the layer of torch.nn that applies φ.
        by_sign: True if φ' depends only on the sign of z; backward then needs one bit per value.
        jumps: Where φ' jumps.  There, rounding can change a gradient completely.

    Example:
        >>> relu = activation("relu")
        >>> relu.backward(torch.tensor([1.0, 1.0]), torch.tensor([-1.0, 2.0]))
        tensor([0., 1.])
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    module: Callable[[], nn.Module]
    by_sign: bool = False
    jumps: tuple[float, ...] = ()

    @cached_property
    def steepest(self) -> float:
        """The largest |φ'|: an error in z grows at most by this factor in φ(z)."""
        z = torch.linspace(-10, 10, 2001, dtype=torch.float64)
        return self.backward(torch.ones_like(z), z).abs().max().item()


def _silu_backward(dy: Tensor, z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return dy * gate * (1 + z * (1 - gate))


def _mish_backward(dy: Tensor, z: Tensor) -> Tensor:
    gate = torch.tanh(F.softplus(z))
    return dy * (gate + z * torch.sigmoid(z) * (1 - gate**2))


def _gelu_tanh_backward(dy: Tensor, z: Tensor) -> Tensor:
    # φ(z) = z · sigmoid(u).  Beyond ±10 φ' is 0 or 1 to all digits, and the cube could overflow.
    z = z.clamp(-10, 10)
    scale = math.sqrt(8 / math.pi)
    u = scale * (z + 0.044715 * z**3)
    slope = scale * (1 + 3 * 0.044715 * z**2)
    return dy * torch.sigmoid(u) * (1 + z * torch.sigmoid(-u) * slope)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda z: z, lambda dy, _: dy, nn.Identity),
    "relu": Activation(
        F.relu,
        lambda dy, z: torch.where(z <= 0, 0.0, dy),
        nn.ReLU,
        by_sign=True,
        jumps=(0.0,),
    ),
    "leaky_relu": Activation(
        lambda z: F.leaky_relu(z, LEAK),
        lambda dy, z: torch.where(z > 0, dy, LEAK * dy),
        partial(nn.LeakyReLU, LEAK),
        by_sign=True,
        jumps=(0.0,),
    ),
    "relu6": Activation(
        F.relu6,
        lambda dy, z: torch.where((z <= 0) | (z >= 6), 0.0, dy),
        nn.ReLU6,
        jumps=(0.0, 6.0),
    ),
    "hardswish": Activation(F.hardswish, _aten.hardswish_backward, nn.Hardswish, jumps=(-3.0, 3.0)),
    "elu": Activation(F.elu, lambda dy, z: dy * z.clamp(max=0).exp(), nn.ELU),
    "silu": Activation(F.silu, _silu_backward, nn.SiLU),
    "mish": Activation(F.mish, _mish_backward, nn.Mish),
    "gelu": Activation(F.gelu, _aten.gelu_backward, nn.GELU),
    "gelu_tanh": Activation(
        partial(F.gelu, approximate="tanh"),
        _gelu_tanh_backward,
        partial(nn.GELU, approximate="tanh"),
    ),
    "tanh": Activation(torch.tanh, lambda dy, z: dy * (1 - torch.tanh(z) ** 2), nn.Tanh),
    "sigmoid": Activation(
        torch.sigmoid,
        lambda dy, z: dy * torch.sigmoid(z) * (1 - torch.sigmoid(z)),
        nn.Sigmoid,
    ),
}


def activation(name: str) -> Activation:
    """Look an activation up by name.

    Args:
        name: a key of ``ACTIVATIONS``.

    Returns:
        The activation.

    Raises:
        UnknownNameError: There is no activation of that name; the message suggests the nearest one.

    Example:
        >>> activation("relu").forward(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]
