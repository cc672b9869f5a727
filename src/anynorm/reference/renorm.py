"""Batch renorm: ẑ corrected towards the running statistics."""

from __future__ import annotations

from anynorm.reference.arrays import Array, namespace
from anynorm.reference.standardize import Standardized
from anynorm.spec import Renorm

__all__ = ["Renormed"]


class Renormed:
    """z = r · ẑ + d for r = σ / σ_running and d = (μ − μ_running) / σ_running within limits.

    Where r and d are within them, z = (x − μ_running) / σ_running, as in evaluation.  The gradient
    takes both for constants (Ioffe 2017, section 3), so that it is that of ẑ with r · ∂L/∂z.

    >>> import numpy
    >>> from anynorm.spec import Spec
    >>> x = numpy.asarray([1.0, 3.0])
    >>> own = Standardized(x, Spec.of("[n]"), (0,), eps=0.0)
    >>> Renormed(own, 0.0, 2.0, Renorm()).z.tolist()
    [0.5, 1.5]
    """

    def __init__(self, own: Standardized, mean: Array, sigma: Array, limits: Renorm) -> None:
        self._own = own
        self._r = _clip(own.sigma / sigma, 1.0 / limits.r_max, limits.r_max)
        d = _clip((own.mean - mean) / sigma, -limits.d_max, limits.d_max)
        self.z = self._r * own.z + d

    def backward(self, dz: Array) -> Array:
        """Return ∂L/∂x from ∂L/∂z."""
        return self._own.backward(self._r * dz)


def _clip(values: Array, low: float, high: float) -> Array:
    xp = namespace(values)
    ones = xp.ones_like(values)
    return xp.where(values < low, low * ones, xp.where(values > high, high * ones, values))
