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


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda u: u, _ones),
    "relu": Activation(lambda u: u * _leak(u, 0.0), lambda u: _leak(u, 0.0)),
    "leaky_relu": Activation(lambda u: u * _leak(u, LEAK), lambda u: _leak(u, LEAK)),
    "silu": Activation(lambda u: u * _sigmoid(u), _silu_slope),
    "gelu": Activation(lambda u: u * _normal_cdf(u), _gelu_slope),
    "tanh": Activation(_tanh, lambda u: 1.0 - _tanh(u) ** 2),
    "sigmoid": Activation(_sigmoid, _sigmoid_slope),
}
