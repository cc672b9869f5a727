"""The activations φ of the formula, each with its derivative φ'."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from anynorm.errors import UnknownNameError
from anynorm.phi import LEAK
from anynorm.reference.arrays import Array, as_float64, namespace

__all__ = ["ACTIVATIONS", "Activation", "activation"]


class Activation(NamedTuple):
    """φ and φ', both functions of the value u before the activation."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def activation(name: str | None) -> Activation:
    """Look φ up by name, None for the identity; raises `UnknownNameError`."""
    name = name or "identity"
    if name not in ACTIVATIONS:
        raise UnknownNameError("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def _ones(u: Array) -> Array:
    return namespace(u).ones_like(u)


def _leak(u: Array, slope: float) -> Array:
    """1 for positive u, `slope` for the rest: the factor of relu and leaky_relu, and their φ'."""
    return namespace(u).where(u > 0, _ones(u), slope * _ones(u))


def _sigmoid(u: Array) -> Array:
    xp = namespace(u)
    small = xp.exp(-xp.abs(u))  # at most 1, where exp(-u) could overflow
    return xp.where(u > 0, _ones(u), small) / (1.0 + small)


def _sigmoid_slope(u: Array) -> Array:
    return _sigmoid(u) * _sigmoid(-u)


def _silu_slope(u: Array) -> Array:
    return _sigmoid(u) + u * _sigmoid_slope(u)


def _tanh(u: Array) -> Array:
    return namespace(u).tanh(u)


def _normal_cdf(u: Array) -> Array:
    """Φ(u), the Gaussian's distribution function, by the standard library: the array API has none.

    erfc keeps its precision in the tail, where 1 + erf(u/√2) would cancel.
    """
    xp = namespace(u)
    flat = xp.reshape(u, (-1,))
    values = [0.5 * math.erfc(-float(flat[i]) / math.sqrt(2.0)) for i in range(flat.shape[0])]
    return xp.reshape(as_float64(values, xp), u.shape)


def _gelu_slope(u: Array) -> Array:
    density = namespace(u).exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
    return _normal_cdf(u) + u * density


_CUBIC = 0.044715
_STEEP = math.sqrt(8.0 / math.pi)


def _gelu_tanh_gate(u: Array) -> Array:
    """What u is multiplied by: (1 + tanh t) / 2 = sigmoid(2t), without its cancellation."""
    return _sigmoid(_STEEP * (u + _CUBIC * u**3))


def _gelu_tanh_slope(u: Array) -> Array:
    gate = _gelu_tanh_gate(u)
    return gate + u * gate * _gelu_tanh_gate(-u) * _STEEP * (1.0 + 3.0 * _CUBIC * u * u)


def _clip(u: Array, low: float, high: float) -> Array:
    xp = namespace(u)
    return xp.where(u < low, low * _ones(u), xp.where(u > high, high * _ones(u), u))


def _relu6_slope(u: Array) -> Array:
    return _leak(u, 0.0) * _leak(6.0 - u, 0.0)


def _hardswish_slope(u: Array) -> Array:
    """0 up to −3, then (2u + 3) / 6, and 1 from 3 on, where torch's derivative jumps."""
    xp = namespace(u)
    return xp.where(u >= 3.0, _ones(u), _leak(u + 3.0, 0.0) * (2.0 * u + 3.0) / 6.0)


def _elu_slope(u: Array) -> Array:
    return namespace(u).exp(_clip(u, -math.inf, 0.0))


def _mish_gate(u: Array) -> Array:
    xp = namespace(u)
    softplus = _clip(u, 0.0, math.inf) + xp.log1p(xp.exp(-xp.abs(u)))
    return xp.tanh(softplus)


def _mish_slope(u: Array) -> Array:
    gate = _mish_gate(u)
    return gate + u * _sigmoid(u) * (1.0 - gate * gate)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda u: u, _ones),
    "relu": Activation(lambda u: u * _leak(u, 0.0), lambda u: _leak(u, 0.0)),
    "leaky_relu": Activation(lambda u: u * _leak(u, LEAK), lambda u: _leak(u, LEAK)),
    "relu6": Activation(lambda u: _clip(u, 0.0, 6.0), _relu6_slope),
    "hardswish": Activation(lambda u: u * _clip(u + 3.0, 0.0, 6.0) / 6.0, _hardswish_slope),
    "elu": Activation(
        lambda u: namespace(u).where(u > 0, u, namespace(u).expm1(_clip(u, -math.inf, 0.0))),
        _elu_slope,
    ),
    "silu": Activation(lambda u: u * _sigmoid(u), _silu_slope),
    "mish": Activation(lambda u: u * _mish_gate(u), _mish_slope),
    "gelu": Activation(lambda u: u * _normal_cdf(u), _gelu_slope),
    "gelu_tanh": Activation(lambda u: u * _gelu_tanh_gate(u), _gelu_tanh_slope),
    "tanh": Activation(_tanh, lambda u: 1.0 - _tanh(u) ** 2),
    "sigmoid": Activation(_sigmoid, _sigmoid_slope),
}
