"""Networks like ResNet-18 and ResNet-50, with torch.nn's layers or with anynorm's fused ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

import anynorm
from anynorm.bench.layers import Composition

__all__ = ["NORMS", "Bottleneck", "Network"]

# A batch norm of so many channels that is followed by φ, which is called as (x) or (x, residual).
Norm = Callable[[int, str | None], nn.Module]
NORMS: dict[str, Norm] = {
    "ours": lambda channels, phi: anynorm.BatchNorm2d(channels, activation=phi),
    "eager": lambda channels, phi: Composition(nn.BatchNorm2d(channels), phi),
}


class Block(nn.Module):
    """Two convolutions and what they are added to."""

    grows = 1

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


class Bottleneck(nn.Module):
    """As `Block`, with a convolution of few channels between two that change their number."""

    grows = 4

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        inner = outputs // self.grows
        self.first = nn.Conv2d(inputs, inner, 1, bias=False)
        self.first_norm = norm(inner, "relu")
        self.second = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.second_norm = norm(inner, "relu")
        self.third = nn.Conv2d(inner, outputs, 1, bias=False)
        self.third_norm = norm(outputs, "relu")
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            short = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.short = nn.Sequential(short, norm(outputs, None))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(self.first_norm(self.first(x))))
        z: Tensor = self.third_norm(self.third(y), self.short(x))
        return z


class Network(nn.Module):
    """A stem, four stages of blocks with 1, 2, 4 and 8 times the channels, a classifier.

    With a `pool` the stem is that of ResNet-50: 7² with stride 2, and a maximum with stride 2.
    """

    def __init__(
        self,
        norm: Norm,
        width: int = 64,
        classes: int = 10,
        block: type[Block] | type[Bottleneck] = Block,
        depths: Sequence[int] = (2, 2, 2, 2),
        pool: bool = False,
    ) -> None:
        super().__init__()
        side = 7 if pool else 3
        stem = nn.Conv2d(3, width, side, 2, side // 2, bias=False)
        layers: list[nn.Module] = [stem, norm(width, "relu")]
        layers += [nn.MaxPool2d(3, 2, 1)] if pool else []
        channels = width
        for stage, depth in enumerate(depths):
            outputs = block.grows * width << stage
            for index in range(depth):
                stride = 2 if stage and not index else 1
                layers.append(block(channels, outputs, stride, norm))
                channels = outputs
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.mean(self.layers(x), (2, 3)))
        return y
