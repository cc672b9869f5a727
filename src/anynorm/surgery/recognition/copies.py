"""Copies of a module that can be measured: without hooks, in float64 or in their own type."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from anynorm.surgery.transfer_hooks import HOOKS

__all__ = ["UnusableError", "called", "copied", "gradients", "in_float64"]

_NARROW = (torch.float32, torch.float16, torch.bfloat16)


class UnusableError(Exception):
    """The module cannot be measured, or has no specification; the message says why."""

    def __init__(self, reason: str, *, normalizes: bool = False) -> None:
        super().__init__(reason)
        self.normalizes = normalizes


def copied(module: nn.Module, size: float) -> nn.Module:
    """Return a copy on the CPU, without hooks, whose parameters have random values around `size`.

    Random values tell γ from β, and γ = w from γ = 1 + w, which new layers do not.

    Raises:
        UnusableError: The module has no values, or cannot be copied.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise UnusableError("its parameters are on the meta device and have no values")
    try:
        twin = copy.deepcopy(module).cpu()
    except Exception as error:
        raise UnusableError(f"it cannot be copied: {error}") from error
    for part in twin.modules():
        for name in HOOKS:
            getattr(part, name).clear()
    generator = torch.Generator().manual_seed(abs(int(size)))
    for parameter in twin.parameters():
        if not parameter.is_floating_point():
            raise UnusableError(f"it has a parameter of type {parameter.dtype}")
        values = 0.5 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = (size * values).to(parameter.dtype)
    return twin


def in_float64(twin: nn.Module) -> nn.Module:
    """Return a copy in float64, with the values of `twin`."""
    return copy.deepcopy(twin).double()


def called(module: nn.Module, x: Tensor) -> Tensor:
    """Return the output for `x`; float64 inputs stay in float64, whatever the module casts to.

    Raises:
        UnusableError: The module fails, or returns something else than a tensor like `x`.
    """
    try:
        widened = _Wide() if x.dtype == torch.float64 else nullcontext()
        with torch.autocast("cpu", enabled=False), widened:
            y = module(x)
    except Exception as error:
        raise UnusableError(
            f"it fails on an input of shape {tuple(x.shape)}: {_reason(error)}"
        ) from error
    if not isinstance(y, Tensor) or y.shape != x.shape or not y.is_floating_point():
        found = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"type {type(y).__name__}"
        raise UnusableError(f"its output has {found} for an input of shape {tuple(x.shape)}")
    return y


def gradients(
    y: Tensor, wanted: Sequence[Tensor], cotangent: Tensor | None = None
) -> Sequence[Tensor | None]:
    """Return the gradients of Σ cotangent · y; None for what y does not depend on.

    Raises:
        UnusableError: The backward of the module fails.
    """
    if not (y.requires_grad and wanted):
        return [None] * len(wanted)
    weights = torch.ones_like(y) if cotangent is None else cotangent
    try:
        return torch.autograd.grad(y, wanted, weights, allow_unused=True)
    except Exception as error:
        raise UnusableError(f"its backward fails: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first line of an error, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Wide(TorchDispatchMode):
    """Replaces casts to narrower types by float64: model code often computes in float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in _NARROW:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)
