"""The names of the activations φ, and the one constant among them: what every backend must hold to.

It imports nothing, so that the NumPy reference, the build of the C++ kernels and the Triton kernels
can all read it.
"""

from __future__ import annotations

__all__ = ["LEAK", "PHIS"]

PHIS = ("identity", "relu", "leaky_relu", "silu", "gelu", "tanh", "sigmoid")
LEAK = 0.01  # slope of leaky_relu for negative values, torch's default
