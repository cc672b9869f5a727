"""Which modules of a model normalize, and what there is to know of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from anynorm import functional as F
from anynorm import nn as own
from anynorm.catalogue import catalogue
from anynorm.surgery.walk import Place, walk

__all__ = ["Normalizer", "normalizer", "normalizers"]

_BATCH = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")
_FAMILIES = {
    "batch": _BATCH,
    "instance": ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
    "group": ("GroupNorm",),
    "layer": ("LayerNorm",),
    "rms": ("RMSNorm",),
}
_EXACT: dict[type[nn.Module], str] = {
    getattr(library, name): family
    for library in (nn, own)
    for family, names in _FAMILIES.items()
    for name in names
} | {own.FrozenBatchNorm: "frozen"}
_BASES: dict[type[nn.Module], str] = {
    nn.modules.batchnorm._BatchNorm: "batch",
    nn.modules.instancenorm._InstanceNorm: "instance",
    nn.GroupNorm: "group",
    nn.LayerNorm: "layer",
    nn.RMSNorm: "rms",
    own.Norm: "norm",
}
_FROZEN_STATE = {"weight", "bias", "running_mean", "running_var"}
_FUSED_CHILDREN = {"drop", "act"}


@dataclass(frozen=True)
class Normalizer:
    """A normalization layer of a model.

    `family` is a name of the catalogue, or "frozen" for batch norm with constant statistics.
    `fused` holds the modules that the layer applies after normalizing, as the fused batch norm and
    activation of image model collections does.  A layer that is not `known` is a subclass that may
    do more than normalize.
    """

    place: Place
    family: str
    fused: tuple[nn.Module, ...] = ()
    known: bool = True

    @property
    def module(self) -> Any:
        """The layer itself."""
        return self.place.module

    @property
    def name(self) -> str:
        """The first name of the layer in its model."""
        return self.place.names[0]

    @property
    def activation(self) -> F.Activation:
        """φ: by name or as a function; the fused modules where there are any."""
        if self.fused:
            return self.fused[0] if len(self.fused) == 1 else nn.Sequential(*self.fused)
        phi: F.Activation = getattr(self.module, "activation", None)
        return phi

    @property
    def channels(self) -> int:
        """The number of channels that the layer was made for."""
        for name in ("num_features", "num_channels"):
            if hasattr(self.module, name):
                return int(getattr(self.module, name))
        if self.family == "frozen":
            return len(self.module.running_mean)
        shape = getattr(self.module, "normalized_shape", None) or self.module.channels
        return int(shape[0])

    @property
    def takes_last_axis(self) -> bool:
        """Whether the channels are the last axis, as in layer norm, and not axis 1."""
        if isinstance(self.module, own.Norm):
            return str(self.module.spec.pattern).startswith("...")
        return len(getattr(self.module, "normalized_shape", ())) == 1

    @property
    def tracks(self) -> bool:
        """Whether the layer keeps running statistics that training updates."""
        return getattr(self.module, "num_batches_tracked", None) is not None

    @property
    def fixed(self) -> bool:
        """Whether the layer is, in eval mode, γ · (x − mean) / √(var + ε) + β with kept numbers."""
        kept = getattr(self.module, "running_var", None) is not None
        return kept and self.family in ("batch", "instance", "frozen", *_MOMENTS)

    @property
    def affine(self) -> tuple[Tensor | None, Tensor | None]:
        """γ and β."""
        return self.module.weight, getattr(self.module, "bias", None)


# Entries whose evaluation is batch norm's, whatever their σ is in training.
_MOMENTS = ("l1-batch", "linf-batch", "ghost")


def normalizers(model: nn.Module) -> list[Normalizer]:
    """Every normalization layer once, with all its names; tied ones too.

    >>> model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), own.LayerNorm(3))
    >>> [(norm.name, norm.family) for norm in normalizers(model)]
    [('1', 'batch'), ('2', 'layer')]
    """
    found = (normalizer(place) for place in walk(model))
    return [norm for norm in found if norm is not None]


def normalizer(place: Place) -> Normalizer | None:
    """What the module at `place` normalizes by; None if it does not."""
    kind = type(place.module)
    if kind in _EXACT:
        return Normalizer(place, _EXACT[kind])
    if kind is own.Norm:
        return Normalizer(place, _entry(place.module))
    if _is_frozen(place.module):
        return Normalizer(place, "frozen")
    family = next((name for base, name in _BASES.items() if isinstance(place.module, base)), None)
    if family is None:
        return None
    fused = _fused(place.module)
    return Normalizer(place, family, fused, known=bool(fused))


def _entry(norm: Any) -> str:
    """The entry of the catalogue that a general layer has, or its pattern."""
    for row in catalogue.values():
        if norm.spec in (row.spec, row.channels_first):
            return row.name
    return str(norm.spec.pattern)


def _is_frozen(module: nn.Module) -> bool:
    """Whether this is a batch norm of constants, as detection models carry one of their own."""
    names = {name for name, _ in module.named_buffers(recurse=False)}
    return names == _FROZEN_STATE and not module._parameters and not module._modules


def _fused(module: nn.Module) -> tuple[nn.Module, ...]:
    """The children of a fused normalization and activation, in the order they are applied."""
    if not module._modules or not set(module._modules) <= _FUSED_CHILDREN:
        return ()
    return tuple(child for child in module._modules.values() if child is not None)
