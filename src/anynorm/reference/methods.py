"""From an input to its normalized values: the split view, the statistics, and the way back.

A method answers three questions for a :class:`~anynorm.reference.Normalizer`: how values are
normalized by their own statistics, how by running ones, and what running statistics start from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy

from anynorm.pattern import ResolvedPattern
from anynorm.reference.arrays import Array, as_float64, beside, namespace
from anynorm.reference.fold import Fold
from anynorm.reference.renorm import Renormed
from anynorm.reference.running import Running, per_channel
from anynorm.reference.standardize import Fixed, Standardized
from anynorm.reference.whiten import Whitened, Whitening, root
from anynorm.spec import Renorm, Scale, Spec

__all__ = ["Core", "Method", "Own", "Standardize", "Whiten", "method"]

Shape = tuple[int, ...]
Statistics = tuple[Array, Array]


class Core(Protocol):
    """Normalized values z and the gradient ∂L/∂x from ∂L/∂z."""

    z: Array

    def backward(self, dz: Array) -> Array:
        """Return ∂L/∂x."""


class Viewed:
    """A core that works on another view of the input: there by `view`, back by `back`."""

    def __init__(self, core: Core, view: Callable[[Array], Array], back: Callable[[Array], Array]):
        self._core, self._view, self._back = core, view, back
        self.z = back(core.z)

    def backward(self, dz: Array) -> Array:
        """Return ∂L/∂x in the input's own shape."""
        return self._back(self._core.backward(self._view(dz)))


@dataclass(frozen=True)
class Own:
    """Values normalized by their own statistics: `count` values to each μ and σ."""

    core: Core
    count: int
    statistics: Callable[[], Statistics]


class Method(Protocol):
    """How one specification normalizes."""

    def own(self, x: Array, running: Running | None) -> Own:
        """Normalize x by its own statistics, which running ones may correct."""

    def fixed(self, x: Array, running: Running) -> Core:
        """Normalize x by running statistics."""

    def initial(self) -> Running:
        """Return the running statistics before the first batch: mean 0, spread 1."""


def method(spec: Spec, channels: Shape, sizes: Mapping[str, int], eps: float) -> Method:
    """Return the method of a specification: covariance roots whiten, all others standardize."""
    if spec.scale is not None and spec.scale.root is not None:
        return Whiten(spec, spec.scale, channels, sizes, eps)
    return Standardize(spec, channels, sizes, eps)


class Standardize:
    """One number σ for each set of values."""

    def __init__(self, spec: Spec, channels: Shape, sizes: Mapping[str, int], eps: float) -> None:
        self._spec, self._channels, self._sizes, self._eps = spec, channels, sizes, eps

    def initial(self) -> Running:
        """Return mean 0 and variance 1 for each channel."""
        mean = numpy.zeros(self._channels)
        return Running(mean, mean + 1.0, blocks=mean.size)

    def own(self, x: Array, running: Running | None) -> Own:
        """Normalize x by its own statistics, in the pattern's split view."""
        plan, xp = self._spec.pattern.plan(x.ndim), namespace(x)
        view = tuple(plan.view(x.shape, self._sizes))
        own = Standardized(xp.reshape(x, view), self._spec, plan.dims, self._eps)
        core = self._corrected(own, running, plan)
        viewed = Viewed(core, lambda y: xp.reshape(y, view), lambda z: xp.reshape(z, x.shape))
        return Own(viewed, own.count, lambda: self._statistics(own, plan))

    def _corrected(self, own: Standardized, running: Running | None, plan: ResolvedPattern) -> Core:
        limits, xp = self._spec.source, namespace(own.z)
        if running is None or not isinstance(limits, Renorm):
            return own
        lies = tuple(plan.affine_view(self._channels, self._sizes))
        mean, spread = (
            xp.reshape(as_float64(value, xp), lies) for value in (running.mean, running.spread)
        )
        return Renormed(own, mean, (spread + self._eps) ** 0.5, limits)

    def _statistics(self, core: Standardized, plan: ResolvedPattern) -> Statistics:
        """The subtracted μ and s² per channel; a variance with Bessel's n/(n−1), as in torch."""
        scale, n = self._spec.scale, core.count
        bessel = n / (n - 1) if scale and scale.is_standard_deviation else 1.0
        affine = plan.affine_view(self._channels, self._sizes)
        mean = per_channel(core.mean, affine, self._channels)
        mean = mean if self._spec.center else 0.0 * mean
        return mean, bessel * per_channel(core.s**2, affine, self._channels)

    def fixed(self, x: Array, running: Running) -> Core:
        """Normalize x by running statistics; σ = sqrt(s² + ε) as in training."""
        first = self._spec.pattern.plan(x.ndim).first
        mean, variance = (beside(value, x, first) for value in (running.mean, running.spread))
        eps = self._eps if self._spec.scale else 0.0
        return Fixed(x, mean, (variance + eps) ** 0.5)


class Whiten:
    """One covariance matrix for each group of channels."""

    def __init__(
        self, spec: Spec, scale: Scale, channels: Shape, sizes: Mapping[str, int], eps: float
    ) -> None:
        self._spec, self._scale, self._sizes, self._eps = spec, scale, sizes, eps
        self._channels = channels
        plan = spec.pattern.plan(len(spec.pattern.axes))
        self._size = Fold(plan).shape(tuple(plan.affine_view(channels, sizes)))[1]

    def initial(self) -> Running:
        """Return mean 0 for each channel and the identity for each group."""
        groups = self._channels[0] // self._size
        identity = numpy.broadcast_to(numpy.eye(self._size), (groups, self._size, self._size))
        return Running(numpy.zeros(self._channels), identity, blocks=groups)

    def own(self, x: Array, running: Running | None) -> Own:  # noqa: ARG002 - the protocol's
        """Whiten x by its own statistics, as matrices of channels against values."""
        plan, xp = self._spec.pattern.plan(x.ndim), namespace(x)
        view, fold = tuple(plan.view(x.shape, self._sizes)), Fold(plan)

        def matrices(y: Array) -> Array:
            return fold.matrices(xp.reshape(y, view))

        def back(z: Array) -> Array:
            return xp.reshape(fold.view(z, view), x.shape)

        core = Whitened(matrices(x), self._scale, self._spec.center, self._eps)
        return Own(Viewed(core, matrices, back), core.count, lambda: self._statistics(core))

    def _statistics(self, core: Whitened) -> Statistics:
        """Mean per channel and covariance per group, averaged over what is left beside groups."""
        xp, c = namespace(core.mean), self._size
        mean = xp.reshape(core.mean, (-1, *self._channels))
        covariance = xp.reshape(core.covariance, (-1, self._channels[0] // c, c, c))
        return xp.mean(mean, axis=0), xp.mean(covariance, axis=0)

    def fixed(self, x: Array, running: Running) -> Core:
        """Whiten x by running statistics."""
        xp, first = namespace(x), self._spec.pattern.plan(x.ndim).first
        moved = xp.moveaxis(x, first, 0).shape

        def matrices(y: Array) -> Array:
            rows = self._channels[0] // self._size
            return xp.reshape(xp.moveaxis(y, first, 0), (rows, self._size, -1))

        def back(z: Array) -> Array:
            return xp.moveaxis(xp.reshape(z, moved), 0, first)

        mean = xp.reshape(as_float64(running.mean, xp), (-1, self._size, 1))
        matrix = root(self._scale.root, as_float64(running.spread, xp), self._eps).matrix
        core = Whitening(matrices(x), mean if self._spec.center else 0.0 * mean, matrix)
        return Viewed(core, matrices, back)
