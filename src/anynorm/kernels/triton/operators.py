"""The operators for CUDA.  If no kernel fits, each calls its plain-PyTorch implementation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from anynorm.kernels.triton import plan_backward, plan_forward, running
from anynorm.kernels.triton.launch_plan import LaunchPlan, planned

__all__ = [
    "moments",
    "normalize",
    "normalize_backward",
    "standardize",
    "standardize_backward",
    "track_",
]

Planner = Callable[..., LaunchPlan | None]
Found = TypeVar("Found")
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _or_formula(kernel: Callable[..., Found | None]) -> Callable[..., Found]:
    """Return the result of the kernels; if it is None, that of the plain formula."""
    formula = getattr(torch.ops.anynorm, f"{kernel.__name__}_formula").default

    @functools.wraps(kernel)
    def either(*args: Any) -> Any:
        found = kernel(*args)
        return formula(*args) if found is None else found

    return either


@_or_formula
def standardize(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, *rest: Any
) -> Four | None:
    """``anynorm::standardize``."""
    given = {"x": x, "residual": residual, "weight": weight, "bias": bias}
    found = _run(plan_forward.standardize, given, rest)
    if found is None:
        return None
    return found["y"], found["mean"], found["square"], found["sign_mask"]


@_or_formula
def moments(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor] | None:
    """``anynorm::moments``."""
    found = _run(plan_forward.moments, {"x": x}, rest)
    return None if found is None else (found["mean"], found["square"])


@_or_formula
def normalize(
    x: Tensor,
    residual: Tensor | None,
    mean: Tensor,
    square: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor] | None:
    """``anynorm::normalize``."""
    given = {"x": x, "residual": residual, "weight": weight, "bias": bias}
    found = _run(plan_forward.normalize, {**given, "mean": mean, "square": square}, rest)
    return None if found is None else (found["y"], found["sign_mask"])


@_or_formula
def standardize_backward(dy: Tensor, *args: Any) -> Four | None:
    """``anynorm::standardize_backward``."""
    return _backward(plan_backward.standardize, dy, *args)


@_or_formula
def normalize_backward(dy: Tensor, *args: Any) -> Four | None:
    """``anynorm::normalize_backward``."""
    return _backward(plan_backward.normalize, dy, *args)


def _backward(
    planner: Planner,
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    sign_mask: Tensor,
    mean: Tensor,
    square: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *rest: Any,
) -> Four | None:
    given = {"x": x, "dy": dy, "residual": residual, "weight": weight, "bias": bias}
    given |= {"mean": mean, "square": square, "sign_mask": sign_mask if sign_mask.numel() else None}
    found = _run(planner, given, rest)
    if found is None:
        return None
    dresidual = found["dresidual"] if "dresidual" in found else x.new_empty(0)
    dweight, dbias = (_summed(found, name, x) for name in ("weight", "bias"))
    return found["dx"], dresidual, dweight, dbias


def _summed(found: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """The gradient of γ or β, the sum of its rows; empty if there is no γ or β."""
    if name not in found:
        return x.new_empty(0)
    rows, parameter = found[f"d{name}"], found[name]
    whole = rows[0] if len(rows) == 1 else rows.sum(0)
    return whole.view(parameter.shape).to(parameter.dtype)


def track_(
    mean: Tensor,
    var: Tensor,
    count: Tensor | None,
    batch_mean: Tensor,
    batch_var: Tensor,
    momentum: float | None,
    correction: float,
) -> None:
    """``anynorm::track_``."""
    tensors = (mean, var, batch_mean, batch_var)
    plain = all(t.shape == mean.shape and t.is_contiguous() for t in tensors)
    counted = count.dim() == 0 if count is not None else momentum is not None
    if plain and counted:
        return running.track(*tensors, count, momentum, correction)
    arguments = (mean, var, count, batch_mean, batch_var, momentum, correction)
    return torch.ops.anynorm.track_formula_.default(*arguments)  # type: ignore[no-any-return]


def _run(
    planner: Planner, given: Mapping[str, Tensor | None], rest: Sequence[Any]
) -> dict[str, Tensor] | None:
    """All tensors after the launches; None if no kernels fit."""
    plan = planned(planner, given, rest)
    return None if plan is None else plan.run(given)
