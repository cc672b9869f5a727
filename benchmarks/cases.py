"""The registry of cases: a normalizer on a shape, ours and torch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

import anynorm

Build = Callable[[], torch.nn.Module]


@dataclass(frozen=True)
class Case:
    name: str
    shape: tuple[int, ...]
    ours: Build
    theirs: Build


def _pair(name: str, shape: tuple[int, ...], *args: int) -> Case:
    ours, theirs = getattr(anynorm, name), getattr(torch.nn, name)
    return Case(name, shape, lambda: ours(*args), lambda: theirs(*args))


def _created(name: str, twin: str, shape: tuple[int, ...]) -> Case:
    theirs = getattr(torch.nn, twin)
    return Case(
        f"create('{name}')", shape, lambda: anynorm.create(name, shape[1]), lambda: theirs(shape[1])
    )


CASES = [
    _pair("BatchNorm1d", (64, 64), 64),
    _created("batch", "BatchNorm1d", (64, 64)),
    _pair("LayerNorm", (64, 64), 64),
    _pair("RMSNorm", (64, 64), 64),
    _pair("GroupNorm", (64, 64), 8, 64),
    _pair("BatchNorm2d", (32, 64, 16, 16), 64),
    _pair("InstanceNorm2d", (32, 64, 16, 16), 64),
    _pair("GroupNorm", (32, 64, 16, 16), 8, 64),
    _pair("LayerNorm", (1024, 1024), 1024),
    _pair("BatchNorm2d", (32, 256, 28, 28), 256),
]
