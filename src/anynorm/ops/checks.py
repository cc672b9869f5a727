"""What an input must be like; each check raises an error with the input, the rule and the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from anynorm.errors import AnynormError, ShapeError
from anynorm.pattern import ResolvedPattern

__all__ = [
    "check_groups",
    "check_residual",
    "need_axes",
    "need_channels",
    "need_counted",
    "need_last_axes",
    "need_real",
    "need_several_positions",
    "need_several_values",
    "need_statistics",
    "single_value",
]


def need_several_values(x: Tensor) -> None:
    """Batch norm in training: more than one value for each channel, and a channel axis."""
    if x.dim() < 2 and x.numel():
        raise ShapeError(
            f"batch norm takes an input (N, C, *) of at least 2 axes, got shape {tuple(x.shape)}. "
            "Add a batch axis with x.unsqueeze(0)."
        )
    if x.numel() == x.shape[1 if x.dim() > 1 else 0] != 0:
        single_value(x, "the batch")


def need_axes(x: Tensor, plan: ResolvedPattern) -> None:
    """Raise if a pattern's brackets are empty for an input of this rank."""
    if not plan.dims:
        raise ShapeError(
            f"an input of shape {tuple(x.shape)} leaves no axis in the brackets of "
            f"'{plan.pattern}': there is nothing to take statistics over. Give it positions, as in "
            "(N, C, L), or use another pattern."
        )


def need_real(x: Tensor) -> None:
    """Raise for integers and complex numbers."""
    if not x.is_floating_point():
        raise AnynormError(
            f"normalization takes real floating-point numbers, got {x.dtype} in shape "
            f"{tuple(x.shape)}. Convert the input with x.float(), or torch.view_as_real(x)."
        )


def need_statistics(x: Tensor, plan: ResolvedPattern, sizes: Mapping[str, int]) -> None:
    """Raise if `x` has nothing to take statistics over, or samples share that of a single value."""
    if not plan.dims:
        need_axes(x, plan)
    if plan.takes_batch and x.numel():
        shape = plan.view(tuple(x.shape), sizes) if plan.splits else x.shape
        for dim in plan.dims:
            if shape[dim] > 1:
                return
        single_value(x, "the axes in brackets")


def single_value(x: Tensor, where: str) -> None:
    """Raise for a deviation over one value."""
    raise ShapeError(
        f"Expected more than 1 value per channel when training, got input size {x.shape}: the "
        f"deviation of {where} would be 0. Use a larger batch (drop_last=True in the DataLoader "
        "drops a last batch of one), .eval(), or a normalizer without batch statistics such as "
        "group norm."
    )


def need_counted(x: Tensor, mask: Tensor) -> None:
    """Raise for a mask that leaves no two values to take a deviation of."""
    raise ShapeError(
        f"mask= of shape {tuple(mask.shape)} leaves at most 1 value per channel of the input of "
        f"size {x.shape} when training: the deviation of one value would be 0. True marks what "
        "counts (give ~mask if it marks the padding); else use a larger batch or .eval()."
    )


def need_several_positions(x: Tensor) -> None:
    """Instance norm: more than one position for each channel of a sample."""
    if x.dim() < 3 or all(size == 1 for size in x.shape[2:]):
        raise ShapeError(
            "Expected more than 1 spatial element when training, got input size "
            f"{x.shape}: instance norm takes statistics over the positions of (N, C, *). Use group "
            "or layer norm on an input without positions."
        )


def need_last_axes(x: Tensor, shape: Sequence[int]) -> None:
    """Raise if `x` does not end in `shape`."""
    if isinstance(shape, int):
        raise AnynormError(
            f"normalized_shape={shape} is one size; functions take a sequence of the sizes of the "
            f"last axes. Give ({shape},)."
        )
    if not shape or tuple(x.shape[-len(shape) :]) != tuple(shape):
        raise ShapeError(
            f"Given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of size{list(x.shape)}. Build the "
            "layer with the sizes of the last axes, or move the channels last."
        )


def need_channels(x: Tensor, argument: str, **vectors: Tensor | None) -> None:
    """Raise if one of the vectors does not have a value for each channel of x (N, C, *).

    `argument` is the layer's for the number of channels.
    """
    for name, vector in vectors.items():
        if vector is not None and x.dim() > 1 and tuple(vector.shape) != (x.shape[1],):
            channels = x.shape[1]
            raise ShapeError(
                f"{name} has shape {tuple(vector.shape)}, got {channels} channels in an input of "
                f"shape {tuple(x.shape)}: it should contain {channels} elements. Build the layer "
                f"with {argument}={channels}, or move the channels to axis 1."
            )


def check_residual(x: Tensor, residual: Tensor) -> None:
    """Raise an error if a residual cannot be added to a normalized input value by value.

    Args:
        x: the input.
        residual: the residual.

    Shape:
        - x, residual: one and the same

    Raises:
        ShapeError: The shapes differ.
        AnynormError: The residual is no tensor, or of another data type than the input.

    Example:
        >>> import torch
        >>> check_residual(torch.zeros(2, 3), torch.ones(2, 3))
    """
    if not isinstance(residual, Tensor):
        raise AnynormError(
            f"residual= is of type {type(residual).__name__}; it must be a torch.Tensor of the "
            "input's shape, or None. Give torch.as_tensor(residual)."
        )
    if not isinstance(x, Tensor):  # of which the caller has the message
        return
    if residual.shape != x.shape:
        raise ShapeError(
            f"the residual has shape {tuple(residual.shape)}, the input {tuple(x.shape)}: they are "
            "added value by value. Give a residual of the input's shape (residual.expand_as(x) "
            "repeats one)."
        )
    if residual.dtype != x.dtype:
        raise AnynormError(
            f"the residual is {residual.dtype}, the input {x.dtype}: they are added as they are. "
            "Convert the residual with residual.to(x.dtype)."
        )


def check_groups(groups: int, shape: Sequence[int]) -> None:
    """Raise an error if a number of groups does not divide the channels of an input.

    Args:
        groups: the number of groups.
        shape: the shape of the input, (N, C, *).

    Raises:
        ShapeError: The groups do not divide C, with the numbers that do, or the shape has fewer
            than 2 axes.

    Example:
        >>> check_groups(2, (8, 6))
    """
    if len(shape) < 2:
        raise ShapeError(
            f"group norm takes an input (N, C, *) of at least 2 axes, got shape {tuple(shape)}. "
            "Add a batch axis with x.unsqueeze(0)."
        )
    if groups < 1 or shape[1] % groups:
        possible = [k for k in range(1, shape[1] + 1) if shape[1] % k == 0]
        raise ShapeError(
            f"num_channels ({shape[1]}) must be divisible by num_groups ({groups}). Possible "
            f"numbers of groups: {', '.join(map(str, possible))}."
        )
