"""φ and its derivative.  The names are compile-time constants, so one branch is left of each.

A name without a branch fails to compile: it must never be taken for the identity.
"""

from __future__ import annotations

import triton
import triton.language as tl

from anynorm.phi import LEAK, PHIS

__all__ = ["PHIS", "activate", "descend"]

_LEAK = tl.constexpr(LEAK)
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_GAUSSIAN = tl.constexpr(0.3989422804014327)  # 1/√(2π)
_SERIES = tl.constexpr(0.1)  # below it tanh is its series, where the quotient would cancel


@triton.jit
def sigmoid(z):
    """Return 1 / (1 + e^−z)."""
    return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def tanh(z):
    """Return tanh z, without cancellation near zero."""
    power = tl.exp(-2.0 * tl.abs(z))
    far = (1.0 - power) / (1.0 + power)
    t = z * z
    near = z * (1.0 + t * (-1.0 / 3.0 + t * (2.0 / 15.0 + t * (-17.0 / 315.0))))
    return tl.where(tl.abs(z) < _SERIES, near, tl.where(z < 0, -far, far))


@triton.jit
def activate(z, PHI: tl.constexpr):
    """Return φ(z)."""
    if PHI == "relu":
        return tl.where(z <= 0, 0.0, z)  # not a number is passed on
    elif PHI == "leaky_relu":
        return tl.where(z <= 0, _LEAK * z, z)
    elif PHI == "silu":
        return z * sigmoid(z)
    elif PHI == "gelu":
        return 0.5 * z * (1.0 + tl.erf(z * _SQRT_HALF))
    elif PHI == "tanh":
        return tanh(z)
    elif PHI == "sigmoid":
        return sigmoid(z)
    else:
        tl.static_assert(PHI == "identity", "unknown activation")
        return z


@triton.jit
def gate(dy, positive, PHI: tl.constexpr):
    """Return dy · φ'(z) where that follows from the sign of z."""
    if PHI == "relu":
        return tl.where(positive, dy, 0.0)
    else:
        tl.static_assert(PHI == "leaky_relu", "unknown activation")
        return tl.where(positive, dy, _LEAK * dy)


@triton.jit
def descend(dy, z, PHI: tl.constexpr):
    """Return dy · φ'(z)."""
    if PHI == "relu":
        return gate(dy, (z <= 0) == 0, PHI)
    elif PHI == "leaky_relu":
        return gate(dy, z > 0, PHI)
    elif PHI == "silu":
        g = sigmoid(z)
        return dy * g * (1.0 + z * (1.0 - g))
    elif PHI == "gelu":
        below = 0.5 * (1.0 + tl.erf(z * _SQRT_HALF))
        return dy * (below + z * _GAUSSIAN * tl.exp(-0.5 * z * z))
    elif PHI == "tanh":
        t = tanh(z)
        return dy * (1.0 - t * t)
    elif PHI == "sigmoid":
        g = sigmoid(z)
        return dy * g * (1.0 - g)
    else:
        tl.static_assert(PHI == "identity", "unknown activation")
        return dy
