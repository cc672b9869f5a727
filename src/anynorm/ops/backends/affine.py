"""γ and β alone: the identity, and inputs without values."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from anynorm.ops import formula
from anynorm.ops.call import NormCall
from anynorm.spec import Learned

__all__ = ["empty", "gain", "identity", "scaled"]


def gain(weight: Tensor, learned: Learned, shape: Sequence[int]) -> Tensor:
    """Return γ of the parameter that stores it, for channels of this shape.

    >>> import torch
    >>> gain(torch.tensor([0.5]), Learned("scalar", offset=1.0), (2,))
    tensor([1.5000, 1.5000])
    """
    if learned.offset:
        weight = formula.widen(weight) + learned.offset
    return weight.reshape(()).expand(shape) if learned.gain == "scalar" else weight


def identity(x: Tensor, call: NormCall) -> Tensor:
    """Return φ(γ · x + β + residual), where nothing is subtracted and σ is 1."""
    return call.epilogue.apply(scaled(x, call))


def empty(x: Tensor, call: NormCall) -> Tensor:
    """Return the output for an input without values, of which γ and β have gradients of zero."""
    return call.epilogue.apply(scaled(x, call).to(x.dtype, copy=True))


def scaled(x: Tensor, call: NormCall) -> Tensor:
    """Return γ · x + β, with γ and β starting at the pattern's channel axis."""
    weight, bias = call.affine
    after = x.dim() - call.plan.first
    if weight is not None:
        x = x * weight.reshape(*weight.shape, *[1] * (after - weight.dim()))
    if bias is not None:
        x = x + bias.reshape(*bias.shape, *[1] * (after - bias.dim()))
    return x
