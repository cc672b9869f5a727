"""Find the modules of a model that normalize, and describe each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anynorm import functional as F
from anynorm import nn as own
from anynorm.catalogue import catalogue, entry
from anynorm.errors import with_article
from anynorm.pattern.axes import CHANNELS, ELLIPSIS
from anynorm.spec import Spec
from anynorm.surgery.names import Layers, matching
from anynorm.surgery.recognize import Recognition
from anynorm.surgery.streaming_stats import double
from anynorm.surgery.walk import Place, walk

__all__ = [
    "NORMALIZERS",
    "Normalizer",
    "catalogue_name",
    "families",
    "named",
    "normalizer",
    "normalizers",
]

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
    `fused` has the modules that the layer applies after normalizing, as in the fused batch norm and
    activation of image model collections.  If `known` is False, the layer is a subclass that may do
    more than normalize.  `recognition` is there if outputs, and not the class, showed what the
    module computes; `layer` is anynorm's layer for it then, with the parameters of the module.
    `line` has the file and the line of a function that normalizes in the forward of the module;
    it is empty for a layer.
    """

    place: Place
    family: str
    fused: tuple[nn.Module, ...] = ()
    known: bool = True
    layer: Any = field(default=None, repr=False)
    recognition: Recognition | None = field(default=None, repr=False)
    line: str = ""

    def __post_init__(self) -> None:
        if self.layer is None:
            object.__setattr__(self, "layer", self.place.module)

    @property
    def module(self) -> nn.Module:
        """The module in the model; what it computes is read from `layer`."""
        return self.place.module

    @property
    def name(self) -> str:
        """The first name of the layer in its model."""
        return self.place.names[0]

    @property
    def activation(self) -> F.Activation:
        """φ: by name or as a function; the fused modules if there are any."""
        if self.fused:
            applied = [child for child in self.fused if type(child) is not nn.Identity]
            return nn.Sequential(*applied) if len(applied) > 1 else next(iter(applied), None)
        phi: F.Activation = getattr(self.layer, "activation", None)
        return phi

    @property
    def channels(self) -> int:
        """The number of channels of the layer."""
        for name in ("num_features", "num_channels"):
            if hasattr(self.layer, name):
                return int(getattr(self.layer, name))
        if self.family == "frozen":
            return len(self.layer.running_mean)
        shape = getattr(self.layer, "normalized_shape", None) or self.layer.channels
        return int(shape[0])

    @property
    def spec(self) -> Spec:
        """The layer's specification: its own, or that of its entry in the catalogue."""
        if isinstance(self.layer, own.Norm):
            return self.layer.spec
        return entry("batch" if self.constant else self.family).spec

    @property
    def takes_last_axis(self) -> bool:
        """Whether the channels are the last axis, as in layer norm, and not axis 1."""
        if not isinstance(self.layer, own.Norm):
            return len(getattr(self.layer, "normalized_shape", ())) == 1
        pattern = self.spec.pattern
        last = any(part.name in CHANNELS for part in pattern.axes[-1])
        free = any(part.name == ELLIPSIS for part in pattern.parts)
        return last and (free or len(pattern.axes) != 2)

    def channel_axis(self, rank: int) -> int:
        """The first axis of γ and the running statistics in an input with `rank` axes."""
        if isinstance(self.layer, own.Norm):
            return self.spec.pattern.plan(rank).first
        return rank - 1 if self.takes_last_axis else 1

    @property
    def constant(self) -> bool:
        """Whether the statistics are constant, also in training."""
        return self.family == "frozen"

    @property
    def keeps(self) -> bool:
        """Whether the layer uses stored statistics in eval mode."""
        spread = (getattr(self.layer, name, None) for name in ("running_var", "running_cov"))
        if getattr(self.layer, "running_mean", None) is None or all(s is None for s in spread):
            return False
        # In eval mode torch's batch norms, and ours of the same names, only look at the buffers.
        by_buffers = isinstance(self.layer, nn.modules.batchnorm._BatchNorm)
        return self.constant or by_buffers or bool(self.layer.track_running_stats)

    @property
    def tracks(self) -> bool:
        """Whether the layer uses running statistics of the training batches in eval mode."""
        return self.keeps and not self.constant

    @property
    def moves(self) -> bool:
        """Whether training updates the statistics of a layer that `tracks`.

        With momentum 0 they do not change.  With momentum None, the cumulative average, they need
        the count of batches, which torch's instance norm never increases.
        """
        if not self.tracks or not self.layer.track_running_stats:
            return False
        if self.layer.momentum is None:
            return self.counts
        return bool(self.layer.momentum != 0)

    @property
    def counts(self) -> bool:
        """Whether the layer counts the batches of training."""
        counted = getattr(self.layer, "num_batches_tracked", None) is not None
        return counted and self.spec.uses_batch

    @property
    def batches(self) -> int:
        """How many batches the layer counted; 0 if it has no count, or a negative one."""
        if not self.counts:
            return 0
        count = float(self.layer.num_batches_tracked)  # averaged copies of a model have fractions
        return int(count) if 0 < count < float("inf") else 0

    @property
    def fixed(self) -> bool:
        """Whether eval mode computes γ · (x − mean) / √(var + ε) + β with stored statistics."""
        return self.keeps and getattr(self.layer, "running_var", None) is not None

    @property
    def affine(self) -> tuple[Tensor | None, Tensor | None]:
        """γ and β: the layer's parameters, but for a γ that is stored as 1 + w."""
        gain, offset = self.layer.weight, self.spec.learned.offset
        if gain is not None and offset:
            gain = double(gain) + offset
        return gain, getattr(self.layer, "bias", None)

    @property
    def base(self) -> type[nn.Module]:
        """The class of torch.nn or anynorm of which this layer is an instance."""
        kinds = type(self.layer).__mro__
        return next((kind for kind in kinds if kind in NORMALIZERS), kinds[1])

    @property
    def doubt(self) -> str:
        """Why a layer that is not `known` is not changed."""
        kind = type(self.layer).__name__
        if any(map(is_lazy, self.layer.parameters())):
            return f"{with_article(kind)} has no channels before the model is called once"
        return f"{with_article(kind)} is a subclass of {self.base.__name__} and may do more"


def normalizers(model: nn.Module) -> list[Normalizer]:
    """Every normalization layer once, with all its names; tied ones too.

    >>> model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), own.LayerNorm(3))
    >>> [(norm.name, norm.family) for norm in normalizers(model)]
    [('1', 'batch'), ('2', 'layer')]
    """
    found = (normalizer(place) for place in walk(model))
    return [norm for norm in found if norm is not None]


def families() -> tuple[str, ...]:
    """Every family that a normalizer of known type can have, except patterns without a name.

    >>> {"batch", "frozen", "layer", "zca"} <= set(families())
    True
    """
    return ("frozen", *(row.name for row in catalogue.values() if row.spec.on == "input"))


def named(found: Sequence[Normalizer], layers: Layers | None, what: str) -> list[Normalizer]:
    """Return those of `found` that `layers` names, or all for None; see `anynorm.surgery.names`.

    Raises `AnynormError` if an entry of `layers` names no layer; `what` completes its message.

    >>> [norm.name for norm in named(normalizers(nn.BatchNorm1d(3)), None, "normalize")]
    ['']
    """
    if layers is None:
        return list(found)
    meant = matching({name for norm in found for name in norm.place.names}, layers, what)
    return [norm for norm in found if meant.intersection(norm.place.names)]


def normalizer(place: Place) -> Normalizer | None:
    """Describe the module at `place` if it normalizes; None if it does not."""
    kind, module = type(place.module), place.module
    if kind in _EXACT:
        return Normalizer(place, _EXACT[kind])
    if isinstance(module, own.Norm) and kind is own.Norm:
        return Normalizer(place, catalogue_name(module))
    if _is_frozen(place.module):
        return Normalizer(place, "frozen")
    family = next((name for base, name in _BASES.items() if isinstance(place.module, base)), None)
    if family is None:
        return None
    fused = _fused(place.module)
    return Normalizer(place, family, fused, known=bool(fused))


def catalogue_name(norm: own.Norm) -> str:
    """The name of a general layer in the catalogue, or its pattern."""
    for row in catalogue.values():
        specs = (row.spec, row.channels_first or row.spec)
        if any(norm.spec.normalizes_as(spec) for spec in specs):
            return row.name
    return str(norm.spec.pattern)


def _is_frozen(module: nn.Module) -> bool:
    """Whether this is a frozen batch norm class, as detection models define it."""
    names = {name for name, _ in module.named_buffers(recurse=False)}
    return names == _FROZEN_STATE and not module._parameters and not module._modules


def _fused(module: nn.Module) -> tuple[nn.Module, ...]:
    """The children of a fused normalization and activation, in the order they are applied."""
    if not module._modules or not set(module._modules) <= _FUSED_CHILDREN:
        return ()
    return tuple(child for child in module._modules.values() if child is not None)
