"""Which modules of a model normalize, and what there is to know of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anynorm import functional as F
from anynorm import nn as own
from anynorm.catalogue import catalogue
from anynorm.surgery.names import Layers, matching
from anynorm.surgery.walk import Place, walk

__all__ = ["NORMALIZERS", "Normalizer", "families", "named", "normalizer", "normalizers"]

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
NORMALIZERS: tuple[type[nn.Module], ...] = (*_EXACT, own.Norm)
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
            applied = [child for child in self.fused if type(child) is not nn.Identity]
            return nn.Sequential(*applied) if len(applied) > 1 else next(iter(applied), None)
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
        if getattr(self.module, "running_var", None) is None:
            return False
        if self.family == "instance":  # the flag decides there, whatever numbers are kept
            return bool(self.module.track_running_stats)
        return self.family in ("batch", "frozen", *_MOMENTS)

    @property
    def affine(self) -> tuple[Tensor | None, Tensor | None]:
        """γ and β."""
        return self.module.weight, getattr(self.module, "bias", None)

    @property
    def base(self) -> type[nn.Module]:
        """The layer of torch.nn or ours that this one is, or is a subclass of."""
        kinds = type(self.module).__mro__
        return next((kind for kind in kinds if kind in NORMALIZERS), kinds[1])

    @property
    def doubt(self) -> str:
        """Why a layer that is not `known` is left alone."""
        kind = type(self.module).__name__
        if any(map(is_lazy, self.module.parameters())):
            return f"a {kind} has no channels before the model is called once"
        return f"a {kind} may do more than {self.base.__name__}, which it is a subclass of"


# Entries whose evaluation is batch norm's, whatever their σ is in training.
_MOMENTS = ("l1-batch", "lp-batch", "linf-batch", "ghost")


def normalizers(model: nn.Module) -> list[Normalizer]:
    """Every normalization layer once, with all its names; tied ones too.

    >>> model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), own.LayerNorm(3))
    >>> [(norm.name, norm.family) for norm in normalizers(model)]
    [('1', 'batch'), ('2', 'layer')]
    """
    found = (normalizer(place) for place in walk(model))
    return [norm for norm in found if norm is not None]


def families() -> tuple[str, ...]:
    """Every family that a normalizer of known type can have, but those of patterns without a name.

    >>> {"batch", "frozen", "layer", "zca"} <= set(families())
    True
    """
    return ("frozen", *(row.name for row in catalogue.values() if row.spec.on == "input"))


def named(found: Sequence[Normalizer], layers: Layers | None, what: str) -> list[Normalizer]:
    """Those of `found` that `layers` means, all where it is None; see `anynorm.surgery.names`.

    Raises `AnynormError` that says `what` they do if one of `layers` means none.

    >>> [norm.name for norm in named(normalizers(nn.BatchNorm1d(3)), None, "normalize")]
    ['']
    """
    if layers is None:
        return list(found)
    meant = matching({name for norm in found for name in norm.place.names}, layers, what)
    return [norm for norm in found if meant.intersection(norm.place.names)]


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
