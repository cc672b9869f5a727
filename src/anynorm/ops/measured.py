"""The operator ``anynorm::moments``: μ and s² alone, for statistics that others add to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anynorm.ops import formula
from anynorm.ops.registry import define, implement
from anynorm.ops.values import Statistic

__all__ = ["measure"]

_SCHEMA = (
    "(Tensor x, int[] dims, bool center, bool about_mean, float p, float factor) "
    "-> (Tensor mean, Tensor square)"
)


def measure(x: Tensor, statistic: Statistic) -> tuple[Tensor, Tensor]:
    """Return μ and s² of `x`, not differentiable, by the kernels of its device where it has some.

    Shapes as for :func:`anynorm.ops.standardize`.
    """
    mean, square = _MOMENTS(x, *statistic[:-1])
    return mean, square


def _kernel(x: Tensor, *statistic: Any) -> tuple[Tensor, Tensor]:
    dims, center, about_mean, p, factor = statistic
    return formula.moments(x, Statistic(dims, center, about_mean, p, factor, 0.0))


def _fake(x: Tensor, dims: list[int], *_: Any) -> tuple[Tensor, Tensor]:
    shape = [1 if axis in dims else size for axis, size in enumerate(x.shape)]
    kind: torch.dtype = formula.accurate(x)
    return x.new_empty(shape, dtype=kind), x.new_empty(shape, dtype=kind)


_MOMENTS = define(f"moments{_SCHEMA}")
for op in (
    _MOMENTS,
    define(f"moments_formula{_SCHEMA}"),
):  # the latter is what kernels hand over to
    implement(op, _kernel, _fake)
