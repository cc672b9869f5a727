"""The formula h = φ(γ · (x − μ) / σ + β) as one class, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy

from anynorm.errors import AnynormError, ShapeError
from anynorm.reference.activations import activation as lookup
from anynorm.reference.arrays import Array, as_float64, beside, namespace
from anynorm.reference.methods import Core, Own, method
from anynorm.reference.running import Running
from anynorm.reference.standardize import Fixed
from anynorm.spec import Spec

__all__ = ["Normalizer"]


class _Saved(NamedTuple):
    """What backward needs of the last forward: the core, ẑ, and u = γ · ẑ + β."""

    core: Core
    z: Array
    u: Array


class Normalizer:
    """Any specification with its parameters, in float64, forward and analytic backward.

    γ and β lie on the axes of the input where the pattern says the channels start.  They are
    attributes (`gamma`, `beta`, initially 1 and 0) that you may set; a normalizer without them
    leaves them alone.  :meth:`backward` sets `dgamma` and `dbeta`.  Where γ is stored as 1 + w, or
    is one number for all channels, `gamma` is what is stored, and `dgamma` its gradient.  Arrays
    may come from any library that follows the array-API standard; what follows none is taken for a
    NumPy array.

    A specification that shares statistics between samples keeps running statistics, in `running`:
    ``running_mean``, ``running_var`` (or ``running_cov``), ``num_batches_tracked``.  Set `running`
    to None to use every batch's own statistics always.

    Args:
        spec: the specification.
        channels: the shape of γ and β, an int or a tuple.
        eps: ε in σ = √(s² + ε).
        sizes: the sizes of the parts of split axes, e.g. ``{"g": 8}``.
        momentum: the weight of the newest batch in the running statistics; None for the average of
            all batches.
        activation: the name of φ; None for the identity.

    Raises:
        ShapeError: An input does not have the channels, or, in training, a statistic that samples
            share is taken over a single value.
        UnknownNameError: There is no activation of that name.

    Example:
        >>> import numpy
        >>> layer = Normalizer(Spec.of("n (g [c])"), 4, sizes={"g": 2}, eps=0.0)
        >>> layer.forward(numpy.asarray([[1.0, 3.0, 10.0, 30.0]])).tolist()
        [[-1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(
        self,
        spec: Spec,
        channels: int | tuple[int, ...],
        *,
        eps: float = 1e-5,
        sizes: Mapping[str, int] | None = None,
        momentum: float | None = 0.1,
        activation: str | None = None,
    ) -> None:
        self.spec = spec
        self.channels = (channels,) if isinstance(channels, int) else tuple(channels)
        self.momentum = momentum
        self.training = True
        self.gamma, self.beta = self._start(), numpy.zeros(self.channels)
        self.dgamma: Array = None
        self.dbeta: Array = None
        self._activation = lookup(activation)
        self._method = method(spec, self.channels, sizes or {}, eps)
        self._saved: _Saved | None = None
        self.running: Running | None = None
        self.reset_running_stats()

    def forward(self, x: Array, training: bool | None = None) -> Array:
        """Compute h.

        Args:
            x: the input.
            training: the mode of this call alone; None for that of the layer.

        Shape:
            - x: any that fits the pattern
            - h: that of x

        Returns:
            h.

        Raises:
            ShapeError: x does not have the channels, or, in training, a statistic that samples
                share is taken over a single value.
        """
        xp = namespace(x)
        x = as_float64(x, xp)
        self._check_channels(x.shape)
        core = self._normalize(x, self.training if training is None else training)
        u = self._gain(core.z) * core.z + self._beside(self.beta, core.z)
        self._saved = _Saved(core, core.z, u)
        return self._activation.value(u)

    __call__ = forward

    def backward(self, dy: Array) -> Array:
        """Return dx = ∂L/∂x from dy = ∂L/∂h of the last forward, and set `dgamma` and `dbeta`.

        From h = φ(u), u = γ · ẑ + β:   du = dy · φ'(u),   dγ = Σ du · ẑ,   dβ = Σ du,   dẑ = du · γ
        with sums over all axes but the channels'.  The rest, ∂ẑ/∂x, is up to μ and σ.
        """
        if self._saved is None:
            raise AnynormError("backward() has nothing to go back through. Call forward() first.")
        core, z, u = self._saved
        dy = as_float64(dy, namespace(z))
        if dy.shape != z.shape:
            raise ShapeError(
                f"dy has shape {tuple(dy.shape)}, the last output {tuple(z.shape)}: "
                "they must agree. Pass the gradient of that output."
            )
        du = dy * self._activation.slope(u)
        self.dgamma, self.dbeta = self._per_channel(du * z), self._per_channel(du)
        if self.spec.learned.gain == "scalar":
            self.dgamma = namespace(z).reshape(namespace(z).sum(self.dgamma), (1,))
        return core.backward(du * self._gain(z))

    def train(self, mode: bool = True) -> Normalizer:
        """Use the batch's own statistics from now on, and update the running ones."""
        self.training = mode
        return self

    def eval(self) -> Normalizer:
        """Use the running statistics from now on, where there are any."""
        return self.train(False)

    def reset_running_stats(self) -> None:
        """Start again from mean 0 and spread 1, where the specification has running statistics."""
        self.running = self._method.initial() if self.spec.uses_batch else None

    @property
    def running_mean(self) -> Array:
        """Running μ in the shape `channels`, or None."""
        return self.running.mean if self.running else None

    @property
    def running_var(self) -> Array:
        """Running s² in the shape `channels`, or None; whitening has `running_cov` instead."""
        return self.running.spread if self.running and not self.spec.whitens else None

    @property
    def running_cov(self) -> Array:
        """Running covariance (groups, c, c) of a whitening layer, or None."""
        return self.running.spread if self.running and self.spec.whitens else None

    @property
    def num_batches_tracked(self) -> int | None:
        """How many batches entered the running statistics, or None."""
        return self.running.batches if self.running else None

    def _normalize(self, x: Array, training: bool) -> Core:
        if self.spec.is_identity or 0 in x.shape:
            return Fixed(x, 0.0, 1.0)
        if self.running and not training:
            return self._method.fixed(x, self.running)
        own = self._method.own(x, self.running)
        if self.running:
            self._enter(own, self.running, x.shape)
        return own.core

    def _enter(self, own: Own, running: Running, shape: tuple[int, ...]) -> None:
        """Let the batch's statistics enter the running ones."""
        if own.count == 1:
            raise ShapeError(
                f"an input of shape {tuple(shape)} has one value for each μ and σ of pattern "
                f"'{self.spec.pattern}': in training that leaves nothing but zeros. Use more "
                "samples, call eval(), or take a normalizer of single samples, such as 'group'."
            )
        running.update(*own.statistics(), self.momentum)

    def _check_channels(self, shape: tuple[int, ...]) -> None:
        first = self.spec.pattern.plan(len(shape)).first
        found = tuple(shape[first : first + len(self.channels)])
        if found != self.channels:
            raise ShapeError(
                f"an input of shape {tuple(shape)} has {found} channels from axis {first} on, "
                f"pattern '{self.spec.pattern}' was built for {self.channels}. "
                f"Build it for {found}, or move the channels to axis {first}."
            )

    def _start(self) -> Array:
        """Return the parameter of γ as it begins."""
        learned = self.spec.learned
        first = math.prod(self.channels) ** 0.5 if learned.start == "root" else 1.0
        shape = (1,) if learned.gain == "scalar" else self.channels
        return numpy.full(shape, first - learned.offset)

    def _gain(self, x: Array) -> Array:
        """Return γ in a shape that broadcasts against x."""
        return self.spec.learned.offset + self._beside(self.gamma, x)

    def _beside(self, parameter: Array, x: Array) -> Array:
        """Return γ or β in a shape that broadcasts against x."""
        return beside(parameter, x, self.spec.pattern.plan(x.ndim).first)

    def _per_channel(self, values: Array) -> Array:
        """Sum over all axes but the channels'."""
        first = self.spec.pattern.plan(values.ndim).first
        last = first + len(self.channels)
        dims = tuple(axis for axis in range(values.ndim) if not first <= axis < last)
        return namespace(values).sum(values, axis=dims)
