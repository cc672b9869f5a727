"""Values that take no part: padding, which a mask tells from what counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anynorm.errors import AnynormError, ShapeError
from anynorm.functional.activation import Activation, finish, following
from anynorm.functional.formula import by_formula
from anynorm.ops import Affine, Running
from anynorm.ops.pooled import blank
from anynorm.ops.ranks import Ranks
from anynorm.spec import Spec

__all__ = ["masked", "whole_mask"]


def masked(
    x: Tensor,
    mask: Tensor,
    spec: Spec,
    affine: Affine,
    running: Running | None,
    *,
    training: bool,
    eps: float,
    activation: Activation,
    residual: Tensor | None,
    sizes: Mapping[str, int] | None = None,
    ranks: Ranks | None = None,
) -> Tensor:
    """Return what :func:`anynorm.functional.normalize` does of the values that count, 0 elsewhere.

    Padding becomes 0 before anything reads it: times 0, not a number would stay one.
    """
    plan = spec.pattern.plan(x.dim())
    mask = whole_mask(mask, x, plan.first)
    after = following(x, residual, activation)
    if residual is not None:
        after = after._replace(residual=blank(residual, mask))
    given = spec, plan, affine, running, training, eps, sizes or {}, after, ranks, mask
    y = finish(by_formula(blank(x, mask), *given), activation)
    return blank(y, mask)


def whole_mask(mask: Any, x: Tensor, channels: int = 1) -> Tensor:
    """Return `mask` with as many axes as `x`, whose axis of channels is `channels`.

    Raises `AnynormError` for one that is not bool, `ShapeError` for one that does not fit.

    >>> whole_mask(torch.ones(2, 5, dtype=torch.bool), torch.zeros(2, 3, 5)).shape
    torch.Size([2, 1, 5])
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise AnynormError(
            f"mask= is {kind}; it says which values count as a bool tensor. Give mask.bool(), True "
            "for what counts."
        )
    sizes = x.shape
    others = (*sizes[:channels], *sizes[channels + 1 :]) if channels < x.dim() else None
    if mask.dim() == x.dim() - 1 and tuple(mask.shape) == others:
        return mask.unsqueeze(channels)
    if mask.dim() == x.dim() and all(
        own in (1, size) for own, size in zip(mask.shape, sizes, strict=True)
    ):
        return mask
    raise _unfitting(mask, x, others)


def _unfitting(mask: Tensor, x: Tensor, others: tuple[int, ...] | None) -> ShapeError:
    without = "" if others is None else f", or {others}, that without the channels"
    return ShapeError(
        f"mask= has shape {tuple(mask.shape)}, the input {tuple(x.shape)}. A mask has the input's "
        f"shape, with 1 for any axis along which it is the same{without}. Reshape or permute the "
        "mask: axes are never matched from the right."
    )
