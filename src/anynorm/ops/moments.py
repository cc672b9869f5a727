"""The operator ``anynorm::moments``: μ and s² without the normalized values."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from anynorm import kernels
from anynorm.ops import formula
from anynorm.ops.registry import define, implement, in_transform, readable
from anynorm.ops.types import Statistic

__all__ = ["measure", "sums_in_float64"]

_SCHEMA = (
    "(Tensor x, int[] dims, bool center, bool about_mean, float p, float factor) "
    "-> (Tensor mean, Tensor square)"
)


def measure(x: Tensor, statistic: Statistic) -> tuple[Tensor, Tensor]:
    """Return μ and s² of `x`, not differentiable, by the kernels of its device where it has some.

    Shapes as for :func:`anynorm.ops.standardize`.
    """
    # For vmap, torch would call the operator for each sample, and warn of it.
    mean, square = (_kernel if in_transform() else _measure)(x, *statistic[:-1])
    return mean, square


def sums_in_float64(x: Tensor) -> bool:
    """Whether a kernel sums `x` in float64, whatever its type: those for the CPU do.

    Kernels for GPUs and the formula sum in the type of the values at work.
    """
    return x.is_cpu and kernels.served(x)


def _kernel(x: Tensor, *statistic: Any) -> tuple[Tensor, Tensor]:
    dims, center, about_mean, p, factor = statistic
    return formula.moments(x, Statistic(dims, center, about_mean, p, factor, 0.0))


def _fake(x: Tensor, dims: list[int], *_: Any) -> tuple[Tensor, Tensor]:
    shape, kind = formula.reduced_shape(x.shape, dims), formula.accurate(x)
    return x.new_empty(shape, dtype=kind), x.new_empty(shape, dtype=kind)


_MOMENTS = define(f"moments{_SCHEMA}")
_FORMULA = define(f"moments_formula{_SCHEMA}")  # what a device's kernel calls where it cannot serve
for op in (_MOMENTS, _FORMULA):
    implement(op, _kernel, _fake)
_measure = readable(_MOMENTS, _kernel)
