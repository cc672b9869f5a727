"""Every normalizer in NumPy, forward and analytic backward, written to be read.

This is the truth that the tests compare with, and the from-scratch class for people who learn.
Everything is float64 and goes through the array-API standard, so any array library will do.

>>> import numpy
>>> from anynorm import reference
>>> layer = reference.BatchNorm(3)
>>> x = numpy.random.default_rng(0).standard_normal((8, 3, 4, 4))
>>> y = layer.forward(x)
>>> dx = layer.backward(numpy.ones_like(y))
>>> dx.shape, layer.dgamma.shape, layer.dbeta.tolist()
((8, 3, 4, 4), (3,), [128.0, 128.0, 128.0])

Where to read: :mod:`~anynorm.reference.standardize` has μ, σ and the gradient through them,
:mod:`~anynorm.reference.whiten` the covariance roots, :mod:`~anynorm.reference.normalizer` γ, β, φ.
"""

from anynorm.reference.activations import ACTIVATIONS
from anynorm.reference.cosine import CosineLinear
from anynorm.reference.named import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    create,
)
from anynorm.reference.normalizer import Normalizer
from anynorm.reference.running import Running

__all__ = [
    "ACTIVATIONS",
    "BatchNorm",
    "CosineLinear",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Normalizer",
    "RMSNorm",
    "Running",
    "create",
]
