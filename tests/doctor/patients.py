"""A small network with healthy statistics, data for it, and networks of the same kind."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "MODEL",
    "Rms",
    "Stack",
    "batches",
    "convolutional",
    "dense",
    "edited",
    "settled",
    "tokens",
]


def batches(count=12, size=16, shape=(3, 6, 6), shift=0.0, scale=1.0):
    """(x, class) with x of (size, *shape) around a pattern of its class."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(4, *shape, generator=generator)
    found = []
    for _ in range(count):
        y = torch.randint(4, (size,), generator=generator)
        noise = torch.randn(size, *shape, generator=generator)
        found.append(((patterns[y] + 0.5 * noise) * scale + shift, y))
    return found


def convolutional(**changes):
    """Two convolutions with batch norm and a linear head; `changes` replace layers by name."""
    torch.manual_seed(0)
    layers = {
        "conv1": nn.Conv2d(3, 8, 3, bias=False),
        "bn1": nn.BatchNorm2d(8),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(8, 8, 3, bias=False),
        "bn2": nn.BatchNorm2d(8),
        "relu2": nn.ReLU(),
        "flat": nn.Flatten(),
        "head": nn.Linear(32, 4),
    }
    model = nn.Sequential()
    for name, layer in {**layers, **changes}.items():
        model.add_module(name, layer)
    return model


def dense(**changes):
    """A linear layer, batch norm and a head for 3 × 6 × 6 values; `changes` come before it."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("flat", nn.Flatten())
    model.add_module("linear", nn.Linear(108, 16, bias=False))
    for name, layer in {**changes, "bn": nn.BatchNorm1d(16), "head": nn.Linear(16, 4)}.items():
        model.add_module(name, layer)
    return model


def settled(model, data=None, steps=40):
    """Train a little, then let the running statistics settle; returns the model in eval mode."""
    data = data or batches()
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for step in range(steps):
        x, y = data[step % len(data)]
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        for step in range(80):
            model(data[step % len(data)][0])
    return model.eval()


MODEL = settled(convolutional())


def edited(edit, model=MODEL):
    """A copy of a model with a fault planted by `edit`."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        edit(model)
    return model


class Rms(nn.Module):
    """An RMS norm of a class that nobody knows; `narrow` computes in the type of the input."""

    def __init__(self, channels, eps=1e-6, narrow=False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps, self.narrow = eps, narrow

    def forward(self, x):
        wide = x if self.narrow else x.float()
        unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * unit.to(x.dtype)


class Stack(nn.Module):
    """A pre-norm residual stack of vectors; what each block adds is multiplied by its gain."""

    def __init__(self, depth=6, width=32, gains=None, make=Rms, **options):
        super().__init__()
        torch.manual_seed(0)
        self.norms = nn.ModuleList(make(width, **options) for _ in range(depth))
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gains = gains or [1.0] * depth

    def forward(self, x):
        for norm, block, gain in zip(self.norms, self.blocks, self.gains, strict=True):
            x = x + gain * block(norm(x))
        return x


def tokens(scale=1.0, dtype=torch.float32):
    """Batches of (4, 10, 32)."""
    generator = torch.Generator().manual_seed(2)
    return [scale * torch.randn(4, 10, 32, generator=generator).to(dtype) for _ in range(3)]
