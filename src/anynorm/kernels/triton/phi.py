"""φ and its derivative.  The name is a compile-time constant, so only one branch is compiled.

A name without a branch fails to compile, so it cannot be mistaken for the identity.
"""

from __future__ import annotations

import inspect
import re

import triton
import triton.language as tl

from anynorm.phi import LEAK

__all__ = ["PHIS", "activate", "descend"]

_LEAK = tl.constexpr(LEAK)
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_GAUSSIAN = tl.constexpr(0.3989422804014327)  # 1/√(2π)
_STEEP = tl.constexpr(1.5957691216057308)  # √(8/π), and the factor of z³, of gelu_tanh
_CUBIC = tl.constexpr(0.044715)
_SERIES = tl.constexpr(0.1)  # below it tanh uses its series, because the quotient would cancel


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
def clip(z, low, high):
    """Return z clamped to two bounds."""
    return tl.where(z < low, low, tl.where(z > high, high, z))


@triton.jit
def mish(z):
    """Return tanh(log(1 + e^z)), the factor of z in mish, and the derivative of the product."""
    w = tl.where(z > 30, 30.0, z)  # e^z squared stays finite; beyond, both are 1
    e = tl.exp(w)
    n = e * (e + 2.0)
    inverse = 1.0 / (n + 2.0)
    return n * inverse, n * inverse + w * (4.0 * e) * (1.0 + e) * inverse * inverse


@triton.jit
def gelu_tanh(z):
    """Return (1 + tanh t) / 2 = sigmoid(2t), and the derivative of its product with z."""
    w = clip(z, -10.0, 10.0)  # beyond, both are 0 or 1, and the cube could overflow
    power = tl.exp(-(w + _CUBIC * w * w * w) * _STEEP)
    g = 1.0 / (1.0 + power)
    rest = power * g  # 1 − g, without cancellation
    return g, g * (1.0 + w * rest * _STEEP * (1.0 + 3.0 * _CUBIC * w * w))


@triton.jit
def table(z, dy, PHI: tl.constexpr):  # noqa: C901 - one branch for each φ
    """Return φ(z) and dy · φ'(z).  The compiler drops the unused one.

    NaN stays NaN.
    """
    if PHI == "identity":
        return z, dy
    elif PHI == "relu":
        return tl.where(z <= 0, 0.0, z), tl.where(z <= 0, 0.0, dy)
    elif PHI == "leaky_relu":
        return tl.where(z > 0, z, _LEAK * z), tl.where(z > 0, dy, _LEAK * dy)
    elif PHI == "relu6":
        return clip(z, 0.0, 6.0), tl.where((z <= 0) | (z >= 6), 0.0, dy)
    elif PHI == "hardswish":
        slope = tl.where(z >= 3, 1.0, (z + 1.5) * (1.0 / 3.0))
        return z * (clip(z + 3.0, 0.0, 6.0) * (1.0 / 6.0)), tl.where(z <= -3, 0.0, dy * slope)
    elif PHI == "elu":
        below = tl.where(z > 0, 0.0, z)
        t = tanh(0.5 * below)  # e^z − 1 = 2t / (1 − t), which does not cancel
        return tl.where(z > 0, z, 2.0 * t / (1.0 - t)), dy * tl.exp(below)
    elif PHI == "silu":
        g = sigmoid(z)
        return z * g, dy * g * (1.0 + z * (1.0 - g))
    elif PHI == "mish":
        g, slope = mish(z)
        return z * g, dy * slope
    elif PHI == "gelu":
        below = 0.5 * (1.0 + tl.erf(z * _SQRT_HALF))
        return z * below, dy * (below + z * _GAUSSIAN * tl.exp(-0.5 * z * z))
    elif PHI == "gelu_tanh":
        g, slope = gelu_tanh(z)
        return z * g, dy * slope
    elif PHI == "tanh":
        t = tanh(z)
        return t, dy * (1.0 - t * t)
    else:
        tl.static_assert(PHI == "sigmoid", "unknown activation")
        g = sigmoid(z)
        return g, dy * g * (1.0 - g)


# The names that the table has.
PHIS = tuple(re.findall(r'PHI == "(\w+)"', inspect.getsource(table.fn)))


@triton.jit
def activate(z, PHI: tl.constexpr):
    """Return φ(z); an unknown name fails a static_assert."""
    value, _ = table(z, z, PHI)
    return value


@triton.jit
def descend(dy, z, PHI: tl.constexpr):
    """Return dy · φ'(z); an unknown name fails a static_assert."""
    _, gradient = table(z, dy, PHI)
    return gradient
