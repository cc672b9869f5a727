"""Normalization by the statistics of several processes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from anynorm import ops
from anynorm.errors import AnynormError
from anynorm.functional.checks import single_value
from anynorm.ops import Affine, After, Statistic
from anynorm.ops.ranks import Ranks, Sync, ranks_of
from anynorm.pattern import Plan
from anynorm.spec import Scale, Spec

__all__ = ["check_synced", "standardize", "together"]


def check_synced(spec: Spec) -> None:
    """Raise `AnynormError` for a normalizer that has no statistics of the whole batch."""
    if not spec.uses_batch:
        raise AnynormError(
            f"sync= shares the statistics of a batch, and pattern '{spec.pattern}' takes none over "
            "samples: each process has all it needs. Leave sync= out."
        )
    if any("n" in [part.name for part in axis] and len(axis) > 1 for axis in spec.pattern.axes):
        raise AnynormError(
            f"sync= makes one batch of those of all processes, and pattern '{spec.pattern}' splits "
            "the batch into parts on purpose. Use '[n] c [...]' with sync=, a smaller group of "
            "ranks for smaller batches, or leave sync= out."
        )


def together(spec: Spec, plan: Plan, sync: Sync, layer: str, x: Tensor) -> Ranks | None:
    """Return the processes to share statistics with; None where this one is alone."""
    if sync is None:
        return None
    check_synced(spec)
    name = layer or f"normalize('{plan.pattern}')"
    ranks: Ranks | None = ranks_of(sync, name, x.device.type)
    return ranks


def standardize(
    x: Tensor,
    affine: Affine,
    spec: Spec,
    dims: Sequence[int],
    eps: float,
    after: After,
    ranks: Ranks,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return h, μ, s² and the number of values of all ranks.

    Shapes as for :func:`anynorm.ops.standardize`.
    """
    statistic = _statistic(spec, dims, eps)
    pooled = ops.synced.pool(x, statistic, ranks)
    if x.is_cpu and not torch.compiler.is_compiling() and pooled.number.item() == 1:
        single_value(x, "the batches of all ranks")
    factor = _factor(spec.scale, pooled.number)
    found = ops.synced.normalized(x, affine, pooled, statistic, after, ranks, factor)
    return *found, pooled.number


def _statistic(spec: Spec, dims: Sequence[int], eps: float) -> Statistic:
    scale = spec.scale
    if scale is None:  # σ = 1
        return Statistic(list(dims), spec.center, True, 2.0, 0.0, 1.0)
    return Statistic(list(dims), spec.center, scale.origin == "mean", scale.p, 1.0, eps)


def _factor(scale: Scale | None, count: Tensor) -> float | Tensor:
    """What :meth:`Scale.factor` is for a count that is only known on the device."""
    if scale is None:
        return 0.0
    if scale.constant == "sum":
        return count ** (1.0 / scale.p)
    if scale.constant == "gaussian" and math.isinf(scale.p):
        return torch.where(count > 1, torch.rsqrt(2.0 * torch.log(count.clamp(min=2))), 1.0)
    return scale.factor(2.0)
