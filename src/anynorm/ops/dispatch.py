"""The only choice of a backend: torch's operators, our kernels, whitening or the formula."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from anynorm.ops.backends import affine, eager, masked, torch_operators, whitening
from anynorm.ops.call import NormCall
from anynorm.ops.checks import need_axes, need_statistics
from anynorm.ops.dialects import as_usual
from anynorm.ops.types import PLAIN

__all__ = ["Backend", "run"]

Backend = Callable[[Tensor, NormCall], Tensor]

_LAST = "... [c]"
# What torch has an operator for, by pattern.  Each takes our kernels where these are faster.
_STANDARD: dict[str, Backend] = {
    "[n] c [...]": torch_operators.batch,
    _LAST: torch_operators.layer_of_last,
    "n c [...]": torch_operators.instance,
    "n (g [c]) [...]": torch_operators.group,
    "n [c ...]": torch_operators.one_group,
}


def run(x: Tensor, call: NormCall, backend: Backend | None = None) -> Tensor:
    """Normalize `x` by the backend that serves the call, or by one that the caller knows to."""
    if call.mask is not None:
        x, call = masked.blanked(x, call)
        backend = None
    y = (backend or _backend(x, call))(x, call)
    y = y if call.function is None else call.function(y)
    return y if call.mask is None else masked.blank(y, call.mask)


def _backend(x: Tensor, call: NormCall) -> Backend:
    """The backend that serves the call, whose input fits its pattern."""
    spec, evaluates = call.spec, call.evaluates
    if spec.is_identity:
        return affine.identity
    if evaluates or call.ranks is not None:
        need_axes(x, call.plan)
    else:
        need_statistics(x, call.plan, call.sizes)
        usual = spec.is_plain or as_usual(spec, x)
        if usual and call.mask is None and (operator := _operator(x, call)):
            return operator
    if spec.whitens:
        return whitening.run
    return torch_operators.evaluate if evaluates else eager.run


def _operator(x: Tensor, call: NormCall) -> Backend | None:
    """The operator of torch's that takes the statistics of `x`; None where it has none."""
    spec, plan, (weight, bias), running = call[:4]
    for vector in (weight, bias, None if running is None else running.mean):
        if vector is not None and vector.dim() != 1:
            return None
    last = x.dim() - 1
    only_last = plan.dims == (last,) and plan.first == last and not plan.splits
    if spec.is_standard:
        return _STANDARD.get(_LAST if only_last else plan.pattern)
    if spec.is_root_mean_square:
        return torch_operators.rms_of_last if only_last and bias is None else None
    if bias is not None or call.epilogue is not PLAIN:
        return None
    return (
        torch_operators.weight if torch_operators.takes_weight(x, spec, weight, call.eps) else None
    )
