"""A small network with healthy statistics, data for it, and networks of the same kind."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["MODEL", "batches", "convolutional", "dense", "edited", "settled"]


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
