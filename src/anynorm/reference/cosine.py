"""Cosine normalization: weights and input divided by their norms."""

from __future__ import annotations

import numpy

from anynorm.catalogue import entry
from anynorm.errors import AnynormError, ShapeError
from anynorm.reference.arrays import Array, as_float64, namespace
from anynorm.reference.standardize import Standardized

__all__ = ["CosineLinear"]


class CosineLinear:
    """Cosine normalization of a linear layer: y = γ · (w · x) / (σ_w σ_x) + β.

    σ = sqrt(Σ² + ε), over the weights of a unit and over the inputs.  `weight` (outputs, inputs)
    starts as a Gaussian sample; `gamma` and `beta` (outputs,) as 1 and 0.  :meth:`backward` sets
    `dweight`, `dgamma` and `dbeta`.

    Args:
        inputs: the size of the input's last axis.
        outputs: the size of the output's last axis.
        eps: ε.
        seed: the seed of the sample.

    Shape:
        - x: (*, inputs)
        - y: (*, outputs)

    Raises:
        ShapeError: The last axis of an input is not the layer's inputs.

    Example:
        >>> import numpy
        >>> layer = CosineLinear(2, 1)
        >>> layer.weight = [[3.0, 0.0]]
        >>> layer.forward(numpy.asarray([[5.0, 0.0], [0.0, 7.0], [-2.0, 0.0]])).round(6).tolist()
        [[1.0], [0.0], [-1.0]]

    Reference:
        Luo et al. 2017, arXiv:1702.05870.
    """

    def __init__(self, inputs: int, outputs: int, *, eps: float = 1e-12, seed: int = 0) -> None:
        self._spec, self._eps = entry("cosine").spec, eps
        self.weight: Array = numpy.random.default_rng(seed).standard_normal((outputs, inputs))
        self.gamma: Array = numpy.ones(outputs)
        self.beta: Array = numpy.zeros(outputs)
        self.dweight: Array = None
        self.dgamma: Array = None
        self.dbeta: Array = None
        self._saved: tuple[Standardized, Standardized, Array] | None = None

    def forward(self, x: Array) -> Array:
        """Compute y.

        Args:
            x: the input.

        Shape:
            - x: (*, inputs)
            - y: (*, outputs)

        Returns:
            y.

        Raises:
            ShapeError: The last axis of x is not the layer's inputs.
        """
        xp = namespace(x)
        x, weight = as_float64(x, xp), as_float64(self.weight, xp)
        if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
            raise ShapeError(
                f"an input of shape {tuple(x.shape)} does not fit {weight.shape[1]} inputs: "
                "they must be its last axis."
            )
        rays, units = self._unit(x), self._unit(weight)
        cosine = rays.z @ xp.moveaxis(units.z, 0, 1)
        self._saved = rays, units, cosine
        return as_float64(self.gamma, xp) * cosine + as_float64(self.beta, xp)

    __call__ = forward

    def backward(self, dy: Array) -> Array:
        """Return dx, and set `dweight`, `dgamma`, `dbeta`; cos = x̂ ŵᵀ is a matrix product."""
        if self._saved is None:
            raise AnynormError("backward() has nothing to go back through. Call forward() first.")
        rays, units, cosine = self._saved
        xp = namespace(cosine)
        dy = as_float64(dy, xp)
        leading = tuple(range(cosine.ndim - 1))
        self.dgamma, self.dbeta = xp.sum(dy * cosine, axis=leading), xp.sum(dy, axis=leading)
        dcosine = dy * as_float64(self.gamma, xp)
        dunits = xp.tensordot(dcosine, rays.z, axes=(leading, leading))
        self.dweight = units.backward(dunits)
        return rays.backward(dcosine @ units.z)

    def _unit(self, vectors: Array) -> Standardized:
        """Divide each vector (last axis) by its norm: the specification `[i ...]` of one vector."""
        return Standardized(vectors, self._spec, (-1,), self._eps)
