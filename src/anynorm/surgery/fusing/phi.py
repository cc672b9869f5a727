"""Which activation of our layers a module or a call computes, by its values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from anynorm.activations import ACTIVATIONS

__all__ = ["phi_of_call", "phi_of_function", "phi_of_module"]

_EQUAL = 1e-10  # in float64: formulas of the same function round otherwise


def phi_of_module(module: nn.Module) -> str | None:
    """The name of the activation that a module without state computes in both modes; else None.

    >>> phi_of_module(nn.ReLU(inplace=True)), phi_of_module(nn.Softmax(-1))
    ('relu', None)
    """
    if next(module.children(), None) or module.state_dict():
        return None
    mode = module.training
    try:
        found = {phi_of_function(module.train(training)) for training in (True, False)}
    finally:
        module.training = mode
    return found.pop() if len(found) == 1 else None


def phi_of_call(node: Node) -> str | None:
    """The name of the activation that a call of a function or method computes; else None."""
    if node.op not in ("call_function", "call_method") or len(node.all_input_nodes) != 1:
        return None
    target: Any = node.target

    def call(x: Tensor) -> Any:
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda _: x)
        return (
            getattr(x, target)(*args[1:], **kwargs)
            if node.op == "call_method"
            else target(*args, **kwargs)
        )

    return phi_of_function(call)


def phi_of_function(function: Callable[[Tensor], Any]) -> str | None:
    """The name of the activation that a function computes; None if it is another function.

    >>> phi_of_function(torch.tanh), phi_of_function(torch.exp)
    ('tanh', None)
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            found = _values(function)
    except Exception:  # it does not take a single vector
        return None
    if found is None:
        return None
    names = (name for name in ACTIVATIONS if name != "identity")
    return next((name for name in names if _alike(found, _expected(name))), None)


def _points() -> Tensor:
    """Points on both sides of zero, and those where a derivative jumps."""
    grid = torch.linspace(-12, 12, 97, dtype=torch.float64)
    return torch.cat([grid, grid[1:-1] / 7])


def _values(function: Callable[[Tensor], Any]) -> tuple[Tensor, Tensor] | None:
    x = _points().requires_grad_()
    y = function(x.clone())  # a clone, since it may work in place
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
        return None
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), gradient


@cache
def _expected(name: str) -> tuple[Tensor, Tensor]:
    x = _points()
    phi = ACTIVATIONS[name]
    return phi.forward(x), phi.backward(torch.ones_like(x), x)


def _alike(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.allclose(a, b, rtol=_EQUAL, atol=_EQUAL) for a, b in pairs)
