"""Which specifications torch has an operator for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from anynorm import ops
from anynorm.functional.named import group_norm, instance_norm, layer_norm, rms_norm
from anynorm.ops import PLAIN, Affine, After, Running
from anynorm.pattern import Pattern, Plan
from anynorm.spec import Spec

__all__ = ["native_operator"]

# What torch has an operator for, by pattern: (x, γ and β, running statistics, ε, sizes, what
# follows) → y.
_Native = Callable[..., Tensor]
_LAST = "... [c]"
_STANDARD: dict[str, _Native] = {
    "[n] c [...]": lambda x, p, running, eps, _, after: ops.native.batch(
        x, running, p.weight, p.bias, True, eps, after
    ),
    _LAST: lambda x, p, _, eps, __, after: layer_norm(
        x, x.shape[-1:], p.weight, p.bias, eps, **_options(after)
    ),
    "n c [...]": lambda x, p, _, eps, __, after: instance_norm(
        x, None, None, p.weight, p.bias, eps=eps, **_options(after)
    ),
    "n (g [c]) [...]": lambda x, p, _, eps, sizes, after: group_norm(
        x, _groups(x, sizes), p.weight, p.bias, eps, **_options(after)
    ),
    "n [c ...]": lambda x, p, _, eps, __, after: group_norm(
        x, 1, p.weight, p.bias, eps, **_options(after)
    ),
}
_ROOT_MEAN_SQUARE: dict[str, _Native] = {
    _LAST: lambda x, p, _, eps, __, after: rms_norm(
        x, x.shape[-1:], p.weight, eps, **_options(after)
    ),
}
# σ is the L2 norm, without ε.
_NORM: dict[str, _Native] = {
    "o [i ...]": lambda x, p, *_: ops.native.weight(x, p.weight),
}


def _options(after: After) -> dict[str, Any]:
    return {"residual": after.residual, "activation": after.phi}


def _groups(x: Tensor, sizes: Mapping[str, int]) -> int:
    """The number of groups, where the size of a group may be given in its stead."""
    if len(sizes) == 1 and "g" in sizes:
        return sizes["g"]
    return Pattern.parse("n (g [c]) [...]").plan(x.dim()).view(tuple(x.shape), sizes)[1]


def native_operator(
    x: Tensor,
    spec: Spec,
    plan: Plan,
    affine: Affine,
    running: Running | None,
    eps: float,
    after: After,
) -> _Native | None:
    """The call of torch's own operator, if it has one for this specification."""
    for vector in (*affine, None if running is None else running.mean):
        if vector is not None and vector.dim() != 1:
            return None
    last = x.dim() - 1
    only_last = plan.dims == (last,) and plan.first == last and not plan.splits
    pattern = _LAST if only_last else plan.pattern.text
    if spec.is_standard:
        return _STANDARD.get(pattern)
    if spec.is_root_mean_square and affine.bias is None:
        return _ROOT_MEAN_SQUARE.get(pattern)
    if spec.is_norm and eps == 0 and after is PLAIN and ops.native.takes_weight(x, affine):
        return _NORM.get(pattern)
    return None
