"""ẑ = (x − μ) / σ and its gradient, for every σ that is one number for each set of values."""

from __future__ import annotations

import math

from anynorm.reference.arrays import Array, less_mean, namespace
from anynorm.spec import Scale, Spec

__all__ = ["Fixed", "Standardized", "power_mean", "power_mean_slope"]

Dims = tuple[int, ...]


def power_mean(size: Array, p: float, dims: Dims) -> Array:
    """Return r = (mean size^p)^(1/p) over `dims`, their largest for p = ∞; sizes are ≥ 0.

    >>> import numpy
    >>> power_mean(numpy.asarray([1.0, 5.0, 7.0]), 2, (0,)).tolist()
    [5.0]
    """
    xp = namespace(size)
    if math.isinf(p):
        return xp.max(size, axis=dims, keepdims=True)
    return xp.mean(size**p, axis=dims, keepdims=True) ** (1.0 / p)


def power_mean_slope(size: Array, p: float, dims: Dims) -> Array:
    """Return ∂r/∂size, in the shape of `size`.

    With m = mean size^p over n values, r = m^(1/p), so

        ∂r/∂size_i = (1/p) m^(1/p − 1) · p size_i^(p−1) / n = (size_i / r)^(p−1) / n,

    a power of a ratio, zero where all sizes are.  For p = ∞ the largest value has the gradient 1,
    shared equally between values that are equally large.
    """
    xp = namespace(size)
    r = power_mean(size, p, dims)
    if math.isinf(p):
        largest = xp.where(size == r, xp.ones_like(size), xp.zeros_like(size))
        return largest / xp.sum(largest, axis=dims, keepdims=True)
    ratio = size / xp.where(r > 0, r, xp.ones_like(r))
    return ratio ** (p - 1.0) / _count(size, dims)


class Standardized:
    """x standardized by its own μ and σ over the axes `dims`: z, mean, s and σ, and the gradient.

    The deviations d are measured from the mean or from zero, as the scale says.  Then
    s = C · (mean |d|^p)^(1/p) and σ = sqrt(s² + ε), or s + ε or max(s, ε) where the dialect says
    so.  Statistics keep their axes, with size 1.

    >>> import numpy
    >>> from anynorm.spec import Spec
    >>> Standardized(numpy.asarray([1.0, 2.0, 3.0]), Spec.of("[n]"), (0,), eps=1 / 3).z.tolist()
    [-1.0, 0.0, 1.0]
    """

    def __init__(self, x: Array, spec: Spec, dims: Dims, eps: float) -> None:
        self.spec, self.dims = spec, dims
        self.count = _count(x, dims)
        self.mean = namespace(x).mean(x, axis=dims, keepdims=True)
        self._d = x - self.mean if _about_mean(spec) else x
        self.s = self._measure()
        self.sigma, self._dsigma_ds = self._regular(eps)
        self.z = (x - self.mean if spec.center else x) / self.sigma

    def _measure(self) -> Array:
        scale = self.spec.scale
        if scale is None:
            return namespace(self.mean).ones_like(self.mean)
        size = abs(self._d)
        return scale.factor(self.count) * power_mean(size, scale.p, self.dims)

    def _regular(self, eps: float) -> tuple[Array, Array]:
        """Return σ and ∂σ/∂s."""
        if self.spec.scale is None:
            return self.s, self.s
        if self.spec.dialect.eps == "max":
            xp = namespace(self.s)
            ones, above = xp.ones_like(self.s), self.s > eps
            return xp.where(above, self.s, eps * ones), xp.where(above, ones, 0.0 * ones)
        if self.spec.dialect.eps == "outside":
            return self.s + eps, namespace(self.s).ones_like(self.s)
        sigma = (self.s**2 + eps) ** 0.5
        return sigma, self.s / sigma

    def backward(self, dz: Array) -> Array:
        """Return ∂L/∂x from ∂L/∂z: x reaches z directly, through μ, and through σ.

        From z = (x − μ)/σ:   directly and through μ   dz/σ less its mean (if centered)
                              ∂L/∂σ = −Σ dz · z / σ
        From σ² = s² + ε:     ∂σ/∂d = (s/σ) · ∂s/∂d; of s + ε: ∂s/∂d; of max(s, ε): that or 0
        From d = x − μ:       the mean is taken off once more (if d is measured from the mean).
        """
        dx = self._through_mean(dz / self.sigma, self.spec.center)
        if self.spec.scale is None:
            return dx
        total = namespace(dz).sum(dz * self.z, axis=self.dims, keepdims=True)
        dsigma = -total / self.sigma
        dd = dsigma * self._dsigma_ds * self._ds_dd(self.spec.scale)
        return dx + self._through_mean(dd, _about_mean(self.spec))

    def _ds_dd(self, scale: Scale) -> Array:
        slope = power_mean_slope(abs(self._d), scale.p, self.dims)
        return scale.factor(self.count) * slope * namespace(self._d).sign(self._d)

    def _through_mean(self, gradient: Array, subtracted: bool) -> Array:
        return less_mean(gradient, self.dims) if subtracted else gradient


class Fixed:
    """x standardized by a given mean and σ, as in evaluation: no gradient through them."""

    def __init__(self, x: Array, mean: Array, sigma: Array) -> None:
        self.sigma = sigma
        self.z = (x - mean) / sigma

    def backward(self, dz: Array) -> Array:
        """Return ∂L/∂x = ∂L/∂z / σ."""
        return dz / self.sigma


def _about_mean(spec: Spec) -> bool:
    return spec.scale is not None and spec.scale.origin == "mean"


def _count(x: Array, dims: Dims) -> int:
    return math.prod(x.shape[axis] for axis in dims)
