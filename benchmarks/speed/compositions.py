"""Normalizers for which torch.nn has no layer, as people compose them of torch's operators."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from anynorm.bench.cases import Shape

__all__ = ["Deviation", "Response", "Standardized", "WeightNorm"]

EPS = 1e-5


class Deviation(nn.Module):
    """Batch norm of (N, C, H, W) by another scale than the standard deviation."""

    running_mean: Tensor
    running_square: Tensor

    def __init__(
        self, channels: int, scale: Callable[[Tensor, tuple[int, ...]], Tensor], factor: float
    ) -> None:
        super().__init__()
        self.scale, self.factor = scale, factor
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("running_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("running_square", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize in training, updating the running statistics."""
        mean = x.mean((0, 2, 3), keepdim=True)
        d = x - mean
        square = (self.factor * self.scale(d, (0, 2, 3))).square()
        with torch.no_grad():
            self.running_mean.lerp_(mean[0], 0.1)
            self.running_square.lerp_(square[0], 0.1)
        return d * (self.weight * torch.rsqrt(square + EPS)) + self.bias


class Response(nn.Module):
    """Filter response normalization of (N, C, H, W), without its thresholded unit."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the root mean square over the positions."""
        square = x.square().mean((2, 3), keepdim=True)
        return x * (self.weight * torch.rsqrt(square + 1e-6)) + self.bias


class _Gain(nn.Module):
    """A gain for each unit of (O, I, H, W)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape[0], 1, 1, 1))


class Standardized(_Gain):
    """Weight standardization of (O, I, H, W) with a gain for each unit."""

    def forward(self, weight: Tensor) -> Tensor:
        """Standardize each unit's weights."""
        var, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
        return (weight - mean) * (self.weight * torch.rsqrt(var + EPS))


class WeightNorm(_Gain):
    """What torch.nn.utils.parametrizations.weight_norm computes of (O, I, H, W)."""

    def forward(self, weight: Tensor) -> Tensor:
        """Divide each unit's weights by their norm."""
        return torch._weight_norm(weight, self.weight, 0)
