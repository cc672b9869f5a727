"""Registration of an operator: schema, fallback kernel, fake kernel, derivative and vmap rule.

There are six ways to call an operator, all with the same derivative.  A compiled graph calls the
operator itself and shows one node.  An exported graph contains the fallback, because other programs
can read its core operators of torch (:func:`readable`).  Inside a torch.func transform the call
goes through the operator's `autograd.Function`, because torch.func does not see
``torch.library.register_autograd``.  In eager mode with gradients it goes through a Function
without ``setup_context``, because torch inspects the arguments of the other kind at every call.
Without gradients it calls the operator below autograd; on a device without kernels it calls the
fallback itself, because the way through torch's dispatcher takes as long as ten operators of torch
on a small tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from anynorm import kernels

__all__ = [
    "LIBRARY",
    "below_autograd",
    "define",
    "implement",
    "in_front",
    "in_transform",
    "operator",
    "peek_interpreter_stack",
    "readable",
]

LIBRARY = torch.library.Library("anynorm", "FRAGMENT")
peek_interpreter_stack = torch._C._functorch.peek_interpreter_stack


def define(schema: str) -> Any:
    """Define the operator of `schema` and return it."""
    LIBRARY.define(schema)
    return getattr(torch.ops.anynorm, schema.partition("(")[0]).default


def implement(op: Any, kernel: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Give `op` its fallback, for devices without a kernel of their own, and its fake kernel."""
    name = str(op.name())
    LIBRARY.impl(name.partition("::")[2], kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(name, fake)


def below_autograd(op: Any) -> Callable[..., Any]:
    """Return `op` for the forward of its own `autograd.Function`, past its registered autograd."""

    def call(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    return call


def operator(
    op: Any, kernel: Callable[..., Any], fake: Callable[..., Any], function: Any
) -> Callable[..., Any]:
    """Give `op` its implementations and return what to call.

    `function` is the `autograd.Function` that calls `op` and has its backward, its context, and a
    vmap rule that is told first what to call for all samples at once.
    """
    implement(op, kernel, fake)
    name = str(op.name())
    # vmap steps aside for a Function, and for an operator only where it is called again as such.
    function.vmap = staticmethod(partial(function.rule, function.apply))
    torch.library.register_vmap(name, partial(function.rule, op))
    torch.library.register_autograd(name, function.backward, setup_context=function.setup_context)

    plain = _without_setup(function).apply

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return kernel(*args) if torch.compiler.is_exporting() else op(*args)
        if peek_interpreter_stack() is not None:
            return function.apply(*args)
        if torch.is_grad_enabled():
            return plain(*args)
        x = args[0]
        if not kernels.on_device_of(x) and _is_unwatched(x):
            return kernel(*args)
        with torch._C._AutoDispatchBelowAutograd():  # as below_autograd, without its call
            return op(*args)

    return call


def _is_unwatched(x: Tensor) -> bool:
    """Whether no mode, tracer or forward-mode differentiation needs to see the operator."""
    return (
        type(x) is Tensor
        and not x.is_meta
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
    )


def readable(op: Any, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return what calls `op`, or its fallback where torch.export records a graph for others."""

    def call(*args: Any) -> Any:
        return kernel(*args) if torch.compiler.is_exporting() else op(*args)

    return call


def in_transform() -> bool:
    """Whether a torch.func transform (vmap, grad, …) is running."""
    return not torch.compiler.is_compiling() and peek_interpreter_stack() is not None


def in_front(tensor: Tensor | None, axis: int | None, size: int) -> Tensor | None:
    """Return `tensor` with the vmapped axis, of `size`, as its first; None stays None."""
    if tensor is None:
        return None
    return tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)


def _without_setup(function: Any) -> Any:
    below, save = function.forward, function.setup_context

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            output = below(*args)
            save(ctx, args, output)
            return output

        backward = staticmethod(function.backward)

    return Plain
