"""Small networks whose layers pad their inputs with zeros, where a constant is not one bias."""

from __future__ import annotations

from collections.abc import Callable

import torch
from networks import conv
from torch import Tensor, nn
from torch.nn import functional as F


def tanh(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution without padding, and an activation that is 0 nowhere."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.Tanh())


def plain(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """Convolutions one after the other, with a stride and a pool."""
    one, two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1, stride=2, bias=False)
    norms = nn.BatchNorm2d(8), nn.BatchNorm2d(6)
    last = nn.Conv2d(6, 2, 3, padding="same")
    front = one, norms[0], activation(), nn.MaxPool2d(2)
    return nn.Sequential(*front, two, norms[1], activation(), last)


def smooth() -> nn.Module:
    """The same with an activation that is 0 nowhere."""
    return plain(nn.SiLU)


class Readers(nn.Module):
    """One layer's channels, read behind different activations and pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.one, self.two = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.three = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        y: Tensor = self.one(torch.tanh(x)) + self.two(F.max_pool2d(F.silu(x), 3, 1, 1))
        return y + self.three(F.relu(x))


class Joined(nn.Module):
    """Two branches, one of which is read twice, in front of a padded layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 6, padding=1), conv(3, 4, padding=1)
        self.head, self.last = conv(16, 5, padding=1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        y: Tensor = self.last(self.head(torch.cat([one, two, torch.sigmoid(one)], 1)))
        return y


class Summed(nn.Module):
    """A residual sum between padded convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = conv(3, 8, padding=1), conv(8, 8, padding=1)
        self.two = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.head(torch.relu(x + self.two(self.one(x))))
        return y


class Grouped(nn.Module):
    """Groups, a shuffle, and depthwise convolutions with a norm behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.one = conv(8, 8, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.behind, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(torch.tanh(self.norm(self.stem(x))))
        x = F.channel_shuffle(x, 2)
        y: Tensor = self.head(F.elu(self.behind(self.depthwise(x))))
        return y


def upwards() -> nn.Module:
    """Transposed convolutions, with phases of a stride and in groups."""
    up = nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1)
    grouped = nn.ConvTranspose2d(8, 4, 3, groups=2, bias=False)
    norms = nn.BatchNorm2d(8), nn.BatchNorm2d(4)
    last = nn.Conv2d(4, 2, 1)
    return nn.Sequential(conv(3, 6), up, norms[0], nn.Tanh(), grouped, norms[1], nn.ReLU(), last)


def line() -> nn.Module:
    """One axis of positions, with dilation."""
    layers = nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.GELU()
    return nn.Sequential(*layers, nn.Conv1d(8, 2, 3, padding=2, dilation=2))


class Again(nn.Module):
    """A padded layer that two inputs with the same constants pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = tanh(3, 6), nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.stem(x)) + self.head(self.stem(x.flip(2)))
        return y


class PreActivated(nn.Module):
    """A residual sum that each branch reads through a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.one, self.two = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.b(torch.tanh(self.two(x + self.a(torch.tanh(self.one(x))))))
        return y


class Twice(nn.Module):
    """A padded layer that reads two constants of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = tanh(3, 6), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.head(x) + self.head(torch.sigmoid(x))
        return y


class Gate(nn.Module):
    """A gate in front of a padded layer: the constants differ between samples."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate = tanh(3, 8), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y: Tensor = self.head(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))
        return y


def averaged() -> nn.Module:
    """A pool whose averages count the padding, so that borders are smaller."""
    return nn.Sequential(tanh(3, 6), nn.AvgPool2d(3, 1, 1), nn.Conv2d(6, 2, 3, padding=1))


SHAPE = 4, 3, 8, 8
PADDED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (plain, SHAPE),
    "smooth": (smooth, SHAPE),
    "readers": (Readers, SHAPE),
    "joined": (Joined, SHAPE),
    "summed": (Summed, SHAPE),
    "grouped": (Grouped, SHAPE),
    "upwards": (upwards, SHAPE),
    "line": (line, (4, 3, 9)),
    "again": (Again, SHAPE),
    "pre-activated": (PreActivated, SHAPE),
}
VARYING: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "gate": (Gate, SHAPE),
    "twice": (Twice, SHAPE),
    "averaged": (averaged, SHAPE),
}
