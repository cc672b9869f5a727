"""The constant among the activations φ, which every backend must hold to.

It imports nothing, so that the NumPy reference, the build of the C++ kernels and the Triton kernels
can all read it.  The activations themselves stand in :mod:`anynorm.activations`.
"""

from __future__ import annotations

__all__ = ["LEAK"]

LEAK = 0.01  # slope of leaky_relu for negative values, torch's default
