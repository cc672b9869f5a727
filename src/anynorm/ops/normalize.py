"""The operator ``anynorm::normalize``: the formula for given statistics, and its backward.

For evaluation: μ and s² are running statistics, no gradient flows into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anynorm.ops import formula, sign_bits
from anynorm.ops.formula import Gradients
from anynorm.ops.fused import Pair, connect, like
from anynorm.ops.types import AS_IT_IS, PLAIN, Affine, Epilogue, Saved, View

__all__ = ["gradients", "keeping", "normalize"]


def normalize(
    x: Tensor,
    mean: Tensor,
    square: Tensor,
    affine: Affine,
    eps: float,
    epilogue: Epilogue = PLAIN,
    view: View = AS_IT_IS,
) -> Tensor:
    """Return h = φ(γ · (x − μ) / σ + β + residual) for given μ and s².

    Shapes: `x` any, h and the residual the same.  In the view, all others have the rank of x and
    broadcast against it.
    """
    return keeping(x, mean, square, affine, eps, epilogue, view)[0]


def keeping(
    x: Tensor,
    mean: Tensor,
    square: Tensor,
    affine: Affine,
    eps: float,
    epilogue: Epilogue = PLAIN,
    view: View = AS_IT_IS,
) -> tuple[Tensor, Tensor]:
    """Return what :func:`normalize` does, and the bits that backward needs."""
    y, sign_mask = _normalize(
        view, (eps, epilogue.phi), x, epilogue.residual, mean, square, *affine
    )
    return y, sign_mask


def gradients(dy: Tensor, saved: Saved, eps: float, phi: str) -> Gradients:
    """Return the gradients of x, residual, γ and β for constant μ and s², not differentiable."""
    found: Gradients = torch.ops.anynorm.normalize_backward.default(dy, *saved, eps, phi)
    return found


class _Normalize(Pair):
    name = "normalize"
    inputs = "Tensor x, Tensor? residual, Tensor mean, Tensor square, Tensor? weight, Tensor? bias"
    outputs = "Tensor y, Tensor sign_mask"
    tail = "float eps, str phi"

    @staticmethod
    def forward(
        x: Tensor,
        residual: Any,
        mean: Tensor,
        square: Tensor,
        weight: Any,
        bias: Any,
        eps: float,
        phi: str,
    ) -> Any:
        epilogue = Epilogue(residual, phi)
        y, sign_mask = formula.normalize(x, mean, square, Affine(weight, bias), eps, epilogue)
        return like(y, x), sign_mask

    @staticmethod
    def fake(x: Tensor, residual: Any, *rest: Any) -> Any:
        return torch.empty_like(x), sign_bits.fake(
            x, formula.keeps_bits(Epilogue(residual, rest[-1]))
        )

    @staticmethod
    def backward(dy: Tensor, saved: Saved, *rest: Any) -> Gradients:
        return formula.normalize_backward(dy, saved, *rest)

    @staticmethod
    def statistics(saved: Saved, *rest: Any) -> tuple[Tensor, Tensor]:
        return saved.mean, saved.square

    @staticmethod
    def saved(tensors: Sequence[Any], output: Sequence[Tensor]) -> Saved:
        x, residual, *others = tensors
        return Saved(x, residual, output[1], *others)

    @staticmethod
    def place(dx: Any, dresidual: Any, dweight: Any, dbias: Any) -> tuple[Any, ...]:
        return dx, dresidual, None, None, dweight, dbias

    @staticmethod
    def deeper(*rest: Any) -> Sequence[Any]:
        return rest


_normalize = connect(_Normalize)
