"""Pairs of forward and backward operators: their schemas, derivatives and vmap rules.

A backward operator takes dy and the tensors of :class:`~anynorm.ops.types.Saved`.  It is the same
for the statistics of the input (:mod:`anynorm.ops.standardize`) and for given ones
(:mod:`anynorm.ops.normalize`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from anynorm.ops import formula
from anynorm.ops.formula import Gradients
from anynorm.ops.registry import (
    below_autograd,
    define,
    implement,
    in_front,
    in_transform,
    operator,
    peek_interpreter_stack,
)
from anynorm.ops.types import AS_IT_IS, Epilogue, Saved, View

__all__ = ["Pair", "connect", "like"]

_SAVED = (
    "Tensor x, Tensor? residual, Tensor sign_mask, Tensor mean, Tensor square, Tensor? weight, "
    "Tensor? bias"
)
_GRADIENTS = "(Tensor dx, Tensor dresidual, Tensor dweight, Tensor dbias)"
_TENSORS_OF_BACKWARD = 8
# The arguments of backward that have a derivative: dy, x, residual, γ and β.
_VARIABLES = (0, 1, 2, 6, 7)


class Pair(ABC):
    """Interface of a forward/backward operator pair.

    `inputs` and `outputs` are the schema of the forward's tensors.  `tail` is the schema of the
    other arguments of both operators; the last of them is φ's name.
    """

    name: ClassVar[str]
    inputs: ClassVar[str]
    outputs: ClassVar[str]
    tail: ClassVar[str]

    @staticmethod
    @abstractmethod
    def forward(*args: Any) -> Any:
        """Compute the forward by the formula."""

    @staticmethod
    @abstractmethod
    def fake(*args: Any) -> Any:
        """Return empty outputs of the forward."""

    @staticmethod
    @abstractmethod
    def backward(dy: Tensor, saved: Saved, *rest: Any) -> Gradients:
        """Compute the gradients by the formula."""

    @staticmethod
    @abstractmethod
    def statistics(saved: Saved, *rest: Any) -> tuple[Tensor, Tensor]:
        """Return μ and s² as they depend on x, for the second derivative."""

    @staticmethod
    @abstractmethod
    def saved(tensors: Sequence[Any], output: Sequence[Tensor]) -> Saved:
        """Return what backward may need, of the forward's tensors and outputs."""

    @staticmethod
    @abstractmethod
    def place(dx: Any, dresidual: Any, dweight: Any, dbias: Any) -> tuple[Any, ...]:
        """Return the gradients of the forward's tensors."""

    @staticmethod
    @abstractmethod
    def deeper(*rest: Any) -> Sequence[Any]:
        """Return the other arguments for tensors that have one more axis in front."""


def connect(pair: type[Pair]) -> Callable[..., Any]:
    """Define the operators of `pair`; return a function that calls the forward in a `View`.

    The output has the shape of the input.  The other outputs have the shapes of the view.
    """
    arguments = f"Tensor dy, {_SAVED}, {pair.tail}"
    gradient = _operator(
        f"{pair.name}_backward",
        f"({arguments}) -> {_GRADIENTS}",
        _backward_kernel(pair),
        _fake_gradients,
        lambda op: _backward_function(pair, op),
    )
    forward = _operator(
        pair.name,
        f"({pair.inputs}, {pair.tail}) -> ({pair.outputs})",
        pair.forward,
        pair.fake,
        lambda op: _forward_function(pair, op, gradient),
    )
    return _viewing(pair, forward, gradient)


def _operator(
    name: str,
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    function: Callable[[Any], Any],
) -> Callable[..., Any]:
    """Define an operator, and a second one that always runs the formula.

    The kernels of a device call the second one for inputs that they cannot take.
    """
    implement(define(f"{name}_formula{schema}"), kernel, fake)
    op = define(f"{name}{schema}")
    return operator(op, kernel, fake, function(op))


def like(y: Tensor, x: Tensor) -> Tensor:
    """Return `y`, fresh from the formula, in the strides that ``empty_like(x)`` has."""
    if x.is_contiguous() and y.stride() == x.stride():
        return y
    out = torch.empty_like(x)
    return y if y.stride() == out.stride() else out.copy_(y)


def _backward_kernel(pair: type[Pair]) -> Callable[..., Gradients]:
    def kernel(dy: Tensor, *args: Any) -> Gradients:
        saved, rest = Saved(*args[: len(Saved._fields)]), args[len(Saved._fields) :]
        if saved.x.numel() == 0:
            empty = _fake_gradients(dy, *args)
            return tuple(gradient.zero_() for gradient in empty)  # type: ignore[return-value]
        dx, dresidual, dweight, dbias = pair.backward(dy, saved, *rest)
        dresidual = like(dresidual, saved.x) if dresidual.numel() else dresidual
        return like(dx, saved.x), dresidual, dweight, dbias

    return kernel


def _fake_gradients(dy: Tensor, x: Tensor, *args: Any) -> Gradients:
    residual, sign_mask, _, _, weight, bias, *_, phi = args
    given = formula.gives_residual(residual, sign_mask, phi)
    dresidual = torch.empty_like(x) if given else x.new_empty(0)
    dweight, dbias = (x.new_empty(0) if p is None else p.new_empty(p.shape) for p in (weight, bias))
    return torch.empty_like(x), dresidual, dweight, dbias


def _viewing(
    pair: type[Pair], forward: Callable[..., Any], gradient: Callable[..., Gradients]
) -> Callable[..., Any]:
    """The forward in a view, which autograd does not record."""

    def viewed(view: View, rest: Sequence[Any], x: Tensor, *tensors: Tensor | None) -> Any:
        y, *others = forward(*(x, *tensors) if view is AS_IT_IS else view.of((x, *tensors)), *rest)
        return y if view.split is None else _unsplit(y, x.shape), *others

    class Viewed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, view: View, rest: Sequence[Any], *tensors: Any) -> Any:
            output = viewed(view, rest, *tensors)
            _save(ctx, pair.saved(tensors, output), output, rest)
            ctx.view = view
            return output

        @staticmethod
        def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
            return None, None, *_gradients(ctx, pair, gradient, dy, ctx.view)

    def call(view: View, rest: Sequence[Any], *tensors: Any) -> Any:
        x, residual, *others = tensors
        if residual is not None and in_transform():  # where bits could not be moved about
            y, *outputs = call(view, (*rest[:-1], "identity"), x, None, *others)
            return Epilogue(residual, rest[-1]).apply(y), *outputs
        # As in_transform, without its call: this is the way of every eager layer.
        eager = not torch.compiler.is_compiling() and peek_interpreter_stack() is None
        if eager and torch.is_grad_enabled():
            return Viewed.apply(view, rest, *tensors)
        return viewed(view, rest, *tensors)

    return call


def _unsplit(y: Tensor, shape: Sequence[int]) -> Tensor:
    """`y` in another shape, not marked as a view: a Function's may not be changed in place."""
    whole: Tensor = torch.ops.aten._unsafe_view.default(y.reshape(shape), shape)
    return whole


def _save(ctx: Any, saved: Saved, output: Any, rest: Sequence[Any]) -> None:
    residual = saved[1]
    ctx.rest, ctx.added = rest, residual is not None
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    if residual is not None and not formula.needs_residual(Epilogue(residual, rest[-1])):
        saved = saved._replace(residual=None)
    ctx.save_for_backward(*saved)


def _gradients(
    ctx: Any,
    pair: type[Pair],
    gradient: Callable[..., Gradients],
    dy: Tensor | None,
    view: View = AS_IT_IS,
) -> Any:
    """The gradients of the forward's tensors."""
    if dy is None:
        return pair.place(None, None, None, None)
    rest = ctx.rest
    x, _, _, _, _, weight, bias = saved = ctx.saved_tensors
    split = dy if view.split is None else dy.view(view.split)
    dx, dresidual, dweight, dbias = gradient(split, *view.of(saved), *rest)
    through = dy if rest[-1] == "identity" else dresidual
    return pair.place(
        dx if view.split is None else dx.reshape(x.shape),
        (through if view.split is None else through.reshape(x.shape)) if ctx.added else None,
        None if weight is None else dweight.view_as(weight),
        None if bias is None else dbias.view_as(bias),
    )


def _forward_function(pair: type[Pair], op: Any, gradient: Callable[..., Gradients]) -> Any:
    """The derivative of the forward: the backward operator."""
    count = pair.inputs.count("Tensor")

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        _save(ctx, pair.saved(inputs[:count], output), output, inputs[count:])

    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        return *_gradients(ctx, pair, gradient, dy), *[None] * len(ctx.rest)

    def rule(call: Any, info: Any, in_dims: Any, *args: Any) -> Any:
        if formula.keeps_bits(Epilogue(args[1], args[-1])):
            return _each(call, info, in_dims, args)
        front = _in_front(info, in_dims, args[:count])
        outputs = call(*front, *pair.deeper(*args[count:]))
        return outputs, (*[0] * (len(outputs) - 1), None)

    return _function(op, save, backward, rule)


def _backward_function(pair: type[Pair], op: Any) -> Any:
    """The derivative of the backward: that of the plain formula."""

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.rest = inputs[_TENSORS_OF_BACKWARD:]
        ctx.save_for_backward(*inputs[:_TENSORS_OF_BACKWARD])

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        tensors = list(ctx.saved_tensors)
        present = [index for index in _VARIABLES if tensors[index] is not None]

        def gradients(*variables: Tensor) -> Gradients:
            for index, variable in zip(present, variables, strict=True):
                tensors[index] = variable
            dy, *others = tensors
            saved = Saved(*others)
            mean, square = pair.statistics(saved, *ctx.rest)
            return pair.backward(dy, saved._replace(mean=mean, square=square), *ctx.rest)

        pull_back = torch.func.vjp(gradients, *(tensors[index] for index in present))[1]
        found = dict(zip(present, pull_back(cotangents), strict=True))
        return tuple(found.get(index) for index in range(_TENSORS_OF_BACKWARD + len(ctx.rest)))

    def rule(call: Any, info: Any, in_dims: Any, *args: Any) -> Any:
        tensors, rest = args[:_TENSORS_OF_BACKWARD], args[_TENSORS_OF_BACKWARD:]
        _, _, residual, sign_mask, _, _, weight, bias = tensors
        if sign_mask.numel():
            return _each(call, info, in_dims, args)
        front = _in_front(info, in_dims, tensors)
        front[3] = sign_mask.flatten()
        gradients = call(*front, *pair.deeper(*rest))
        given = formula.gives_residual(residual, sign_mask, rest[-1])
        there = (True, given, weight is not None, bias is not None)
        return gradients, tuple(0 if present else None for present in there)

    return _function(op, save, backward, rule)


def _function(op: Any, save: Any, backward: Any, rule: Any) -> Any:
    forward = below_autograd(op)
    members = {
        "forward": forward,
        "setup_context": save,
        "backward": backward,
        "rule": rule,
    }
    return type(
        "Fused", (torch.autograd.Function,), {k: staticmethod(f) for k, f in members.items()}
    )


def _in_front(info: Any, in_dims: Any, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [
        in_front(tensor, axis, info.batch_size)
        for tensor, axis in zip(tensors, in_dims, strict=False)
    ]


def _each(call: Any, info: Any, in_dims: Any, args: Any) -> Any:
    """One call for each sample: bits have no axis that could be moved."""

    def sample(index: int) -> list[Any]:
        return [
            arg.select(axis, index) if isinstance(arg, Tensor) and axis is not None else arg
            for arg, axis in zip(args, in_dims, strict=False)
        ]

    outputs = [call(*sample(index)) for index in range(info.batch_size)]
    stacked = tuple(map(torch.stack, zip(*outputs, strict=True)))
    return stacked, (0,) * len(stacked)
