"""A ResNet-18-like network, with torch.nn's layers or with anynorm's fused ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import anynorm
from benchmarks.layers import Composition

__all__ = ["NORMS", "Network"]

# A batch norm of so many channels that is followed by φ, which is called as (x) or (x, residual).
Norm = Callable[[int, str | None], nn.Module]
NORMS: dict[str, Norm] = {
    "ours": lambda channels, phi: anynorm.BatchNorm2d(channels, activation=phi),
    "eager": lambda channels, phi: Composition(nn.BatchNorm2d(channels), phi),
}


class Block(nn.Module):
    """Two convolutions and what they are added to."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = norm(outputs, "relu")
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = norm(outputs, "relu")
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            short = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.short = nn.Sequential(short, norm(outputs, None))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(self.first(x))
        z: Tensor = self.second_norm(self.second(y), self.short(x))
        return z


class Network(nn.Module):
    """A stem, eight blocks in four stages of 1, 2, 4 and 8 times `width` channels, a classifier."""

    def __init__(self, norm: Norm, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False), norm(width, "relu")]
        channels = width
        for stage in range(4):
            outputs = width << stage
            layers.append(Block(channels, outputs, 2 if stage else 1, norm))
            layers.append(Block(outputs, outputs, 1, norm))
            channels = outputs
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.mean(self.layers(x), (2, 3)))
        return y
