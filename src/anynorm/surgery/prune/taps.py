"""The weights of linear layers and convolutions, by group, input, output and tap."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from anynorm.surgery.channels import Use

__all__ = ["by_group", "even", "from_taps", "responses", "steps", "taps_of"]


def taps_of(use: Use, weight: Tensor) -> Tensor:
    """A layer's weight as (groups, inputs, outputs, taps)."""
    rows = weight.reshape(use.groups, -1, weight.shape[1], math.prod(weight.shape[2:]))
    return rows if use.transposed else rows.transpose(1, 2)


def from_taps(use: Use, taps: Tensor, shape: torch.Size) -> Tensor:
    """The weight of this shape with these taps."""
    return (taps if use.transposed else taps.transpose(1, 2)).reshape(shape)


def responses(use: Use, weight: Tensor) -> Tensor:
    """The contribution of a constant input of 1 to each output: (groups, outputs, inputs)."""
    summed = taps_of(use, weight).sum(3).mT
    # The phases of a stride use different taps: this is their average.
    return summed / math.prod(steps(use)) if use.transposed else summed


def by_group(use: Use, inputs: Tensor) -> Tensor:
    """Values of a layer's inputs as (groups, inputs of each); those of one group hold for all."""
    shape = use.shape
    width = shape[0] // use.groups if use.transposed else shape[1]
    return inputs.reshape(-1, width).expand(use.groups, width)


def even(use: Use) -> bool:
    """Whether a constant input gives a constant output, at borders too."""
    kernel = use.shape[2:]
    if use.transposed:
        return {*kernel, *steps(use)} <= {1}
    padding: Any = use.node.args[4] if len(use.node.args) > 4 else 0
    if padding == "same":
        return set(kernel) <= {1}
    return padding in (0, "valid") or not any(padding)


def steps(use: Use) -> list[int]:
    """The stride along each axis of positions."""
    rank = len(use.shape) - 2
    stride: Any = use.node.args[3] if len(use.node.args) > 3 else 1
    found = [stride] if isinstance(stride, int) else list(stride)
    return found * rank if len(found) == 1 else found
