"""The constant of the activations φ, which must be equal in every backend.

It imports nothing, so that the NumPy reference, the build of the C++ kernels and the Triton kernels
can all read it.  The activations themselves are in :mod:`anynorm.activations`.
"""

from __future__ import annotations

__all__ = ["LEAK"]

LEAK = 0.01  # slope of leaky_relu for negative values, torch's default
