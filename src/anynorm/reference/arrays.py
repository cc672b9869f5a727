"""One text for every array library: the array-API namespace of an array, and a few helpers.

See the Python array API standard, https://data-apis.org/array-api/.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy

__all__ = ["Array", "as_float64", "beside", "less_mean", "namespace", "transpose"]

Array: TypeAlias = Any  # the standard has no common base class to name here


def namespace(x: Array) -> Any:
    """Return the functions of `x`'s library: NumPy for whatever does not name its own.

    >>> namespace([1.0, 2.0]).__name__
    'numpy'
    """
    named = getattr(x, "__array_namespace__", None)
    return named() if named else numpy


def as_float64(values: Array, xp: Any) -> Array:
    """Return `values` as a float64 array of the namespace `xp`."""
    return xp.asarray(values, dtype=xp.float64)


def beside(value: Array, x: Array, first: int) -> Array:
    """Return `value` so that it broadcasts against x, its axes those of x from `first` on.

    >>> beside([1.0, 2.0], numpy.ones((5, 2, 4)), 1).shape
    (1, 2, 1)
    """
    xp = namespace(x)
    value = as_float64(value, xp)
    after = (1,) * (x.ndim - first - value.ndim)
    return xp.reshape(value, (1,) * first + value.shape + after)


def less_mean(x: Array, dims: tuple[int, ...]) -> Array:
    """Return x − mean(x) over the axes `dims`.

    The derivative of x − μ is this same map: the identity less the mean.  So every "through μ" of
    the backward passes is a call of this function.
    """
    return x - namespace(x).mean(x, axis=dims, keepdims=True)


def transpose(matrices: Array) -> Array:
    """Swap the last two axes."""
    return namespace(matrices).moveaxis(matrices, -1, -2)
