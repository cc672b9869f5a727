"""The operator ``anynorm::standardize``: the formula over any axes, and its backward.

Both operators take the split view of the input (see :class:`anynorm.pattern.Plan`) with γ and β
shaped to broadcast against it; `dims` count from the front.  A device gets kernels of its own by
``torch.library.impl`` for its dispatch key; the plain-PyTorch formula serves every other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anynorm.ops import formula
from anynorm.ops.formula import Statistic
from anynorm.ops.registry import below_autograd, define, in_front, operator

__all__ = ["standardize"]

_STATISTIC = "int[] dims, bool center, bool about_mean, float p, float factor, float eps, str phi"
_FORWARD = define(
    f"standardize(Tensor x, Tensor? weight, Tensor? bias, {_STATISTIC}) -> (Tensor, Tensor, Tensor)"
)
_BACKWARD = define(
    "standardize_backward(Tensor dy, Tensor x, Tensor mean, Tensor square, Tensor? weight, "
    f"Tensor? bias, {_STATISTIC}) -> (Tensor, Tensor, Tensor)"
)


def standardize(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, statistic: Statistic, phi: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h = φ(γ · (x − μ) / σ + β), μ and s²; only h is differentiable.

    Shapes: `x` any; `weight` and `bias` broadcast against it; μ and s² have size 1 in
    ``statistic.dims``.
    """
    result: tuple[Tensor, Tensor, Tensor] = _standardize(x, weight, bias, *statistic, phi)
    return result


def _forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any) -> Any:
    if x.numel() == 0:  # no values have no statistics: not a number, which no running mean takes in
        y, mean, square = _fake_forward(x, weight, bias, *rest)
        return y, mean.fill_(torch.nan), square.fill_(torch.nan)
    *statistic, phi = rest
    y, mean, square = formula.forward(x, weight, bias, Statistic(*statistic), phi)
    return _like(y, x), mean, square


def _backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    square: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *rest: Any,
) -> Any:
    if x.numel() == 0:
        dx, dweight, dbias = _fake_backward(dy, x, mean, square, weight, bias)
        return dx, dweight.zero_(), dbias.zero_()
    *statistic, phi = rest
    dx, dweight, dbias = formula.backward(
        dy, x, mean, square, weight, bias, Statistic(*statistic), phi
    )
    return _like(dx, x), dweight, dbias


def _like(y: Tensor, x: Tensor) -> Tensor:
    """`y`, fresh from the formula, in the strides that ``empty_like(x)`` has."""
    out = torch.empty_like(x)
    return y if y.stride() == out.stride() else out.copy_(y)


def _fake_forward(x: Tensor, weight: Any, bias: Any, dims: list[int], *rest: Any) -> Any:
    shape = [1 if axis in dims else size for axis, size in enumerate(x.shape)]
    dtype = formula.widen(x.new_empty(0)).dtype
    return torch.empty_like(x), x.new_empty(shape, dtype=dtype), x.new_empty(shape, dtype=dtype)


def _fake_backward(
    dy: Tensor, x: Tensor, mean: Tensor, square: Tensor, weight: Any, bias: Any, *rest: Any
) -> Any:
    return torch.empty_like(x), _fake_parameter(weight, mean), _fake_parameter(bias, mean)


def _fake_parameter(parameter: Tensor | None, mean: Tensor) -> Tensor:
    if parameter is None:
        return mean.new_empty(0)
    return mean.new_empty(parameter.shape, dtype=parameter.dtype)


def _save_forward(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, bias, *ctx.rest = inputs
    _, mean, square = output
    ctx.mark_non_differentiable(mean, square)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, mean, square, weight, bias)


def _differentiate_forward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
    nothing = [None] * len(ctx.rest)
    if dy is None:
        return None, None, None, *nothing
    x, mean, square, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = _gradient(dy, x, mean, square, weight, bias, *ctx.rest)
    return dx, _if(weight, dweight), _if(bias, dbias), *nothing


def _if(parameter: Tensor | None, gradient: Tensor) -> Tensor | None:
    return None if parameter is None else gradient


def _save_backward(ctx: Any, inputs: Any, output: Any) -> None:
    dy, x, _, _, weight, bias, *ctx.rest = inputs
    ctx.save_for_backward(dy, x, weight, bias)


def _differentiate_backward(ctx: Any, *cotangents: Tensor) -> Any:
    """Differentiate the plain formula, with μ and s² as functions of x once more."""
    saved = ctx.saved_tensors
    present = [index for index, tensor in enumerate(saved) if tensor is not None]
    *arguments, phi = ctx.rest
    statistic = Statistic(*arguments)

    def everywhere(values: Any) -> list[Any]:
        """One value for each of dy, x, γ and β: None where there is no such tensor."""
        found = dict(zip(present, values, strict=True))
        return [found.get(index) for index in range(len(saved))]

    def gradient(*tensors: Tensor) -> tuple[Tensor, ...]:
        dy, x, weight, bias = everywhere(tensors)
        moments = formula.moments(formula.widen(x), statistic)
        return formula.backward(dy, x, *moments, weight, bias, statistic, phi)

    pull_back = torch.func.vjp(gradient, *(saved[index] for index in present))[1]
    ddy, dx, dweight, dbias = everywhere(pull_back(cotangents))
    return ddy, dx, None, None, dweight, dbias, *[None] * len(ctx.rest)


def _vmap_forward(info: Any, in_dims: Any, *args: Any) -> Any:
    return _Standardize.apply(*_batch_in_front(info, in_dims, args, tensors=3)), (0, 0, 0)


def _vmap_backward(info: Any, in_dims: Any, *args: Any) -> Any:
    dweight, dbias = (None if args[i] is None else 0 for i in (4, 5))
    return _Gradient.apply(*_batch_in_front(info, in_dims, args, tensors=6)), (0, dweight, dbias)


def _batch_in_front(info: Any, in_dims: Any, args: Any, tensors: int) -> list[Any]:
    """Give every tensor the vmapped axis as its first and move the reduced axes behind it."""
    front = [
        in_front(arg, axis, info.batch_size)
        for arg, axis in zip(args[:tensors], in_dims, strict=False)
    ]
    dims, *rest = args[tensors:]
    return [*front, [dim + 1 for dim in dims], *rest]


class _Standardize(torch.autograd.Function):
    forward = staticmethod(below_autograd(_FORWARD))
    setup_context = staticmethod(_save_forward)
    backward = staticmethod(_differentiate_forward)
    vmap = staticmethod(_vmap_forward)


class _Gradient(torch.autograd.Function):
    forward = staticmethod(below_autograd(_BACKWARD))
    setup_context = staticmethod(_save_backward)
    backward = staticmethod(_differentiate_backward)
    vmap = staticmethod(_vmap_backward)


_standardize = operator(_FORWARD, _forward, _fake_forward, _Standardize)
_gradient = operator(_BACKWARD, _backward, _fake_backward, _Gradient)
