"""Padding masks: the values that do not count become 0 before and after normalization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anynorm.errors import AnynormError, ShapeError
from anynorm.ops.call import NormCall
from anynorm.ops.merged_statistics import blank

__all__ = ["blank", "blanked", "whole_mask"]


def blanked(x: Tensor, call: NormCall) -> tuple[Tensor, NormCall]:
    """Return the input and its call with 0 for the values that do not count.

    They become 0 before anything reads them, because NaN times 0 is NaN.  The mask of the call gets
    the rank of the input.
    """
    mask = whole_mask(call.mask, x, call.plan.first)
    epilogue = call.epilogue
    if epilogue.residual is not None:
        epilogue = epilogue._replace(residual=blank(epilogue.residual, mask))
    return blank(x, mask), call._replace(mask=mask, epilogue=epilogue)


def whole_mask(mask: Any, x: Tensor, channels: int = 1) -> Tensor:
    """Return a mask with as many axes as the input.

    Args:
        mask: a padding mask, a bool tensor: True for the values that count.
        x: the input.
        channels: the axis of the input that has the channels.

    Shape:
        - x: any
        - mask: that of `x`, with 1 for any axis, or that of `x` without the channels
        - output: that of `x`, with 1 for any axis

    Returns:
        The mask, with an axis of size 1 for the channels where it had none.

    Raises:
        AnynormError: The mask is not bool.
        ShapeError: The mask does not fit the input.

    Example:
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
