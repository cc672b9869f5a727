"""The channels of batch norm whose γ and β are measured after training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anynorm.surgery.normalizers import normalizers

__all__ = ["MOST_CHANNELS", "Channels", "channels_of"]

# The most channels that are measured one by one; in a larger model they are spread evenly.
MOST_CHANNELS = 400


@dataclass(frozen=True)
class Channels:
    """A batch norm layer with γ and β, and its channels that are measured."""

    name: str
    layer: nn.Module
    chosen: Tensor

    @property
    def gamma(self) -> Tensor:
        """γ of all channels; writing to it changes the layer."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    @property
    def beta(self) -> Tensor:
        """β of all channels."""
        bias = self.layer.bias
        assert isinstance(bias, Tensor)
        return bias.detach()


def channels_of(model: nn.Module, most: int = MOST_CHANNELS) -> list[Channels]:
    """Return the layers of batch norm with γ and β, and at most `most` channels of all together.

    >>> model = nn.Sequential(nn.BatchNorm1d(6), nn.LayerNorm(6), nn.BatchNorm1d(2))
    >>> [(found.name, found.chosen.tolist()) for found in channels_of(model, most=4)]
    [('0', [0, 2, 5]), ('2', [0])]
    """
    layers = [
        norm
        for norm in normalizers(model)
        if norm.tracks and norm.spec.pools_batch and norm.spec.scales_channels
        if all(isinstance(value, nn.Parameter) for value in norm.affine)
    ]
    total = sum(norm.channels for norm in layers)
    return [
        Channels(norm.name, norm.module, _spread(norm.channels, most / total)) for norm in layers
    ]


def _spread(count: int, share: float) -> Tensor:
    """Indices of a share of `count` channels, one at least, from the first to the last."""
    kept = max(1, min(count, int(count * share)))
    return torch.linspace(0, count - 1, kept).long()
