"""Normalizers for which torch.nn has no layer, as people compose them of torch's operators."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from anynorm.bench.cases import Shape

__all__ = [
    "Deviation",
    "Gemma",
    "Llama",
    "Pixel",
    "Renorm",
    "Response",
    "ScaleNorm",
    "Standardized",
    "WeightNorm",
]

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


class Pixel(nn.Module):
    """Pixelwise normalization of (N, C, *), as in progressive GANs."""

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the root mean square over the channels."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class ScaleNorm(nn.Module):
    """ScaleNorm of (*, C), as its authors write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(channels**0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the norm, which is at least ε."""
        norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * (self.weight / norm.clamp(min=EPS))


class Gemma(nn.Module):
    """RMS norm of (*, C) as transformers' GemmaRMSNorm writes it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by 1 + w in float32, and round then."""
        wide = x.float()
        y = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (y * (1.0 + self.weight.float())).type_as(x)


class Llama(nn.Module):
    """RMS norm of (*, C) as transformers' LlamaRMSNorm writes it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Round, and multiply by γ then."""
        wide = x.to(torch.float32)
        y = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * y.to(x.dtype)


class Renorm(nn.BatchNorm2d):
    """Batch renorm of (N, C, H, W)."""

    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Correct by r and d in training, and update the running statistics."""
        with torch.no_grad():
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
            sigma = torch.sqrt(self.running_var + EPS)
            r = (torch.sqrt(var + EPS) / sigma).clamp(1 / 3, 3)
            d = ((mean - self.running_mean) / sigma).clamp(-5, 5)
        running = self.running_mean, self.running_var
        weight, bias = self.weight * r, self.weight * d + self.bias
        return nn.functional.batch_norm(x, *running, weight, bias, training=True)
