"""The layers to compare: anynorm's, and the equivalent code with torch.nn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

import anynorm
from anynorm.activations import activation
from anynorm.bench.cases import DTYPES, Case

__all__ = ["NORMALIZERS", "Inputs", "Normalizer", "groups", "inputs", "ours", "placed", "theirs"]


class Normalizer(NamedTuple):
    """How a normalizer is built for a shape: ours (with φ), and torch.nn's."""

    ours: Callable[..., nn.Module]
    theirs: Callable[..., nn.Module]


class Composition(nn.Module):
    """A layer, a residual and φ as separate operators, as people usually write them."""

    def __init__(self, norm: nn.Module, phi: str | None) -> None:
        super().__init__()
        self.norm, self.phi = norm, phi

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize, add, activate."""
        y: Tensor = self.norm(x)
        z = y if residual is None else y + residual
        return z if self.phi is None else activation(self.phi).forward(z)


class Inputs(NamedTuple):
    """The inputs of the layers: x, the residual, and the cotangent."""

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


def groups(channels: int) -> int:
    """Return the number of groups of group norm: 32 if that divides the channels."""
    return max(count for count in range(1, 33) if channels % count == 0)


def _channels(name: str, **options: bool) -> Normalizer:
    """A class with the same name in both libraries, built for the channels on axis 1."""
    mine, torchs = getattr(anynorm, name), getattr(nn, name)
    return Normalizer(
        lambda shape, phi: mine(shape[1], activation=phi, **options),
        lambda shape: torchs(shape[1], **options),
    )


Known = Mapping[str, Normalizer]
NORMALIZERS: Known = {
    "batch": _channels("BatchNorm2d"),
    "batch1d": _channels("BatchNorm1d"),
    "instance": _channels("InstanceNorm2d", affine=True),
    "layer": _channels("LayerNorm"),
    "rms": _channels("RMSNorm"),
    "group": Normalizer(
        lambda shape, phi: anynorm.GroupNorm(groups(shape[1]), shape[1], activation=phi),
        lambda shape: nn.GroupNorm(groups(shape[1]), shape[1]),
    ),
}


def ours(case: Case, device: str = "cpu", known: Known = NORMALIZERS) -> nn.Module:
    """anynorm's layer, which also has the residual and φ."""
    return placed(known[case.normalizer].ours(case.shape, case.phi), case, device)


def theirs(case: Case, device: str = "cpu", known: Known = NORMALIZERS) -> nn.Module:
    """torch.nn's layer, followed by the residual and φ."""
    layer = Composition(known[case.normalizer].theirs(case.shape), case.phi)
    return placed(layer, case, device)


def placed(layer: nn.Module, case: Case, device: str) -> nn.Module:
    """Move a layer to a device, with parameters of the input's type.

    On a GPU those of batch norm are float32, as under autocast, so that torch uses cuDNN.
    """
    mixed = device != "cpu" and case.normalizer.startswith("batch")
    return layer.to(device, torch.float32 if mixed else DTYPES[case.dtype])
