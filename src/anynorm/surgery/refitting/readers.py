"""The layers that read channels: which of their inputs and outputs each channel is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from anynorm.surgery.channels import Channels, Use
from anynorm.surgery.refitting.dense import as_matrix, as_weight

__all__ = ["Reader", "readers"]


@dataclass(frozen=True)
class Reader:
    """A weight that multiplies channels, by its name.

    `inputs` has the channel of each input of a group, the same in every group; `outputs` the
    channel of each output, (groups, outputs of each), 0 for none.  An input has a feature for each
    position of the kernel.
    """

    name: str
    uses: tuple[Use, ...]
    shape: torch.Size
    inputs: Tensor
    outputs: Tensor

    def matrix(self, weight: Tensor) -> Tensor:
        """A weight as (groups, outputs of each, features)."""
        return as_matrix(weight, self.uses[0].groups, self.uses[0].transposed)

    def weight(self, matrix: Tensor) -> Tensor:
        """The weight that a matrix is."""
        return as_weight(matrix, self.shape, self.uses[0].transposed)

    def left(self, cut: Collection[int]) -> list[int]:
        """The features that are left without the channels `cut`."""
        return [at for at, root in enumerate(self._roots) if root not in cut]

    def blocks(self, cut: Collection[int], among: Collection[int]) -> dict[int, list[int]]:
        """The places of each channel in :meth:`left`, for the channels `among`."""
        found: dict[int, list[int]] = {}
        for place, at in enumerate(self.left(cut)):
            if (root := self._roots[at]) in among:
                found.setdefault(root, []).append(place)
        return found

    def reads(self, channels: Collection[int]) -> bool:
        """Whether it reads any of the channels."""
        return any(root in channels for root in self.inputs.tolist())

    @cached_property
    def _roots(self) -> list[int]:
        """The channel of each feature."""
        return [root for root in self.inputs.tolist() for _ in range(self.shape[2:].numel())]


def readers(channels: Channels) -> list[Reader]:
    """The readers of a model in order of execution."""
    found: dict[str, list[Use]] = {}
    for use in channels.uses:
        found.setdefault(use.weight, []).append(use)
    return [
        _reader(tuple(uses), channels)
        for name, uses in found.items()
        if (name, int(not uses[0].transposed)) in channels.readers
    ]


def _reader(uses: tuple[Use, ...], channels: Channels) -> Reader:
    use = uses[0]
    inputs = channels.sites[use.weight, int(not use.transposed)]
    # The labels of all groups are united: one row stands for each of them.
    first = inputs[: len(inputs) // use.groups] if use.transposed else inputs
    outputs = channels.made_by(use).reshape(use.groups, -1)
    return Reader(use.weight, uses, use.shape, first, outputs)
