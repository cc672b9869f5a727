"""What is compared: anynorm's layers, and what people write with torch.nn in their stead."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import anynorm
from anynorm.activations import activation
from anynorm.bench.cases import DTYPES, Case, Shape
from anynorm.bench.compositions import Deviation, Response, Standardized, WeightNorm

__all__ = ["NORMALIZERS", "Composition", "Inputs", "alike", "groups", "inputs", "ours", "theirs"]

Build = Callable[..., nn.Module]
MOST_GROUPS = 32


@dataclass(frozen=True)
class Normalizer:
    """How a normalizer is built for a shape: ours (which takes φ), and theirs.

    `twin`: whether torch has a layer of that kind; otherwise theirs is composed of operators.
    """

    ours: Build
    theirs: Build
    twin: bool = True


class Composition(nn.Module):
    """A layer, the residual and φ as people write them: one operator each."""

    def __init__(self, norm: nn.Module, phi: str | None) -> None:
        super().__init__()
        self.norm, self.phi = norm, phi

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize, add, activate."""
        y: Tensor = self.norm(x)
        z = y if residual is None else y + residual
        return z if self.phi is None else activation(self.phi).forward(z)


@dataclass(frozen=True)
class Inputs:
    """What the layers are given: x, what is added to their output, and the cotangent."""

    x: Tensor
    residual: Tensor | None
    dy: Tensor

    @property
    def forward(self) -> tuple[Tensor, ...]:
        """The arguments of a layer."""
        return (self.x,) if self.residual is None else (self.x, self.residual)


def inputs(case: Case, device: str = "cpu") -> Inputs:
    """Random tensors of the case's shape, layout and type."""

    def random() -> Tensor:
        x = torch.randn(case.shape, dtype=DTYPES[case.dtype], device=device)
        return x.contiguous(memory_format=memory)

    memory = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    residual = random().requires_grad_() if case.adds else None
    return Inputs(random().requires_grad_(), residual, random())


def alike(layer: nn.Module, other: nn.Module) -> None:
    """Give `other` the parameters of `layer`, in their order."""
    with torch.no_grad():
        for parameter, target in zip(layer.parameters(), other.parameters(), strict=True):
            target.copy_(parameter.view_as(target))


def ours(case: Case) -> nn.Module:
    """anynorm's layer, which does it all."""
    layer = NORMALIZERS[case.normalizer].ours(case.shape, case.phi)
    return layer.to(DTYPES[case.dtype])


def theirs(case: Case) -> nn.Module:
    """torch.nn's layer and what follows it."""
    norm = NORMALIZERS[case.normalizer].theirs(case.shape)
    return Composition(norm, case.phi).to(DTYPES[case.dtype])


def _channels(name: str, **options: bool) -> Normalizer:
    """A class of that name in both, built for the channels, which are axis 1."""
    mine, torchs = getattr(anynorm, name), getattr(nn, name)
    return Normalizer(
        lambda shape, phi: mine(shape[1], activation=phi, **options),
        lambda shape: torchs(shape[1], **options),
    )


def groups(channels: int) -> int:
    """Return how many groups group norm is given: 32 where that divides the channels."""
    return max(count for count in range(1, MOST_GROUPS + 1) if channels % count == 0)


def _created(name: str, theirs: Build) -> Normalizer:
    return Normalizer(
        lambda shape, phi: anynorm.create(name, shape[1], activation=phi), theirs, twin=False
    )


def _of_weight(name: str, shape: Shape, _: str | None) -> nn.Module:
    row = anynorm.catalogue[name]
    return anynorm.NormalizedWeight(row.spec, torch.randn(shape), row.eps)


NORMALIZERS = {
    "batch": _channels("BatchNorm2d"),
    "batch1d": _channels("BatchNorm1d"),
    "instance": _channels("InstanceNorm2d", affine=True),
    "layer": _channels("LayerNorm"),
    "rms": _channels("RMSNorm"),
    "group": Normalizer(
        lambda shape, phi: anynorm.GroupNorm(groups(shape[1]), shape[1], activation=phi),
        lambda shape: nn.GroupNorm(groups(shape[1]), shape[1]),
    ),
    "l1-batch": _created(
        "l1-batch", lambda shape: Deviation(shape[1], _mean_magnitude, math.sqrt(math.pi / 2))
    ),
    "linf-batch": _created(
        "linf-batch",
        lambda shape: Deviation(
            shape[1], _largest, 1 / math.sqrt(2 * math.log(math.prod(shape) // shape[1]))
        ),
    ),
    "filter-response": _created("filter-response", lambda shape: Response(shape[1])),
    "weight": Normalizer(partial(_of_weight, "weight"), WeightNorm),
    "weight-standardization": Normalizer(
        partial(_of_weight, "weight-standardization"), Standardized, twin=False
    ),
}


def _mean_magnitude(d: Tensor, axes: tuple[int, ...]) -> Tensor:
    return d.abs().mean(axes, keepdim=True)


def _largest(d: Tensor, axes: tuple[int, ...]) -> Tensor:
    return d.abs().amax(axes, keepdim=True)
