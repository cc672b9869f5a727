"""The operator ``anynorm::standardize``: the formula over any axes, and its backward.

Both operators take the split view of the input (see :class:`anynorm.pattern.ResolvedPattern`) with
γ and β shaped to broadcast against it; `dims` count from the front.  A device gets kernels of its
own by ``torch.library.impl`` for its dispatch key; the plain-PyTorch formula serves every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anynorm.ops import formula, sign_bits
from anynorm.ops.formula import Gradients
from anynorm.ops.fused import Pair, connect, like
from anynorm.ops.types import AS_IT_IS, PLAIN, Affine, Epilogue, Saved, Statistic, View

__all__ = ["standardize"]


def standardize(
    x: Tensor,
    affine: Affine,
    statistic: Statistic,
    epilogue: Epilogue = PLAIN,
    view: View = AS_IT_IS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h = φ(γ · (x − μ) / σ + β + residual), μ and s²; only h is differentiable.

    Shapes: `x` any, h and the residual the same.  In the view, γ and β have the rank of x and
    broadcast against it, and μ and s², in float64, have size 1 in ``statistic.dims``.
    """
    y, mean, square, _ = _standardize(
        view, (*statistic, epilogue.phi), x, epilogue.residual, *affine
    )
    return y, mean, square


class _Standardize(Pair):
    name = "standardize"
    inputs = "Tensor x, Tensor? residual, Tensor? weight, Tensor? bias"
    outputs = "Tensor y, Tensor mean, Tensor square, Tensor sign_mask"
    tail = "int[] dims, bool center, bool about_mean, float p, float factor, float eps, str phi"

    @staticmethod
    def forward(x: Tensor, residual: Any, weight: Any, bias: Any, *rest: Any) -> Any:
        *statistic, phi = rest
        if x.numel() == 0:  # has no statistics: not a number, which no running mean takes in
            y, mean, square, sign_mask = _Standardize.fake(x, residual, weight, bias, *rest)
            return y, mean.fill_(torch.nan), square.fill_(torch.nan), sign_mask.zero_()
        y, *others = formula.forward(
            x, Affine(weight, bias), Statistic(*statistic), Epilogue(residual, phi)
        )
        return like(y, x), *others

    @staticmethod
    def fake(x: Tensor, residual: Any, weight: Any, bias: Any, dims: list[int], *rest: Any) -> Any:
        shape = formula.reduced_shape(x.shape, dims)
        mean, square = (x.new_empty(shape, dtype=formula.accurate(x)) for _ in range(2))
        return (
            torch.empty_like(x),
            mean,
            square,
            sign_bits.fake(x, formula.keeps_bits(Epilogue(residual, rest[-1]))),
        )

    @staticmethod
    def backward(dy: Tensor, saved: Saved, *rest: Any) -> Gradients:
        *statistic, phi = rest
        return formula.backward(dy, saved, Statistic(*statistic), phi)

    @staticmethod
    def statistics(saved: Saved, *rest: Any) -> tuple[Tensor, Tensor]:
        return formula.moments(saved.x, Statistic(*rest[:-1]))

    @staticmethod
    def saved(tensors: Sequence[Any], output: Sequence[Tensor]) -> Saved:
        x, residual, weight, bias = tensors
        _, mean, square, sign_mask = output
        return Saved(x, residual, sign_mask, mean, square, weight, bias)

    @staticmethod
    def place(dx: Any, dresidual: Any, dweight: Any, dbias: Any) -> tuple[Any, ...]:
        return dx, dresidual, dweight, dbias

    @staticmethod
    def deeper(*rest: Any) -> Sequence[Any]:
        dims, *others = rest
        return [[dim + 1 for dim in dims], *others]


_standardize = connect(_Standardize)
