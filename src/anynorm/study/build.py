"""From a cell to its initialised model: the subject, its normalizers and its initial scale."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from anynorm import lookup
from anynorm.catalogue import catalogue
from anynorm.errors import AnynormError, UnknownNameError
from anynorm.nn import create, normalized
from anynorm.study.cell import Cell
from anynorm.study.data import Data, seeded
from anynorm.study.noise import DistributionNoise
from anynorm.study.subjects import SUBJECTS
from anynorm.surgery import put, replace_norms, walk

__all__ = ["build"]

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def build(cell: Cell, data: Data) -> nn.Module:
    """The model of `cell` as it is before training: the same cell gives the same weights.

    The same seed gives the same weights to every normalizer. Raises `AnynormError` when the
    subject is unknown or its factory cannot be used.
    """
    norms = _Norms(cell)
    with seeded(cell.seed):
        model = _built_in(cell, data, norms) if cell.subject in SUBJECTS else _own(cell, norms)
    _scale_weights(model, cell.init)
    return model if norms.on_input else _normalize_weights(model, cell)


class _Norms:
    """Gives each place in the model its normalizer, and counts the places."""

    def __init__(self, cell: Cell) -> None:
        if cell.norm not in catalogue:
            raise UnknownNameError("normalizer", cell.norm, catalogue)
        self.cell = cell
        self.on_input = catalogue[cell.norm].spec.on == "input"
        self.count = 0

    def __call__(self, channels: int) -> nn.Module:
        self.count += 1
        norm = _create(self.cell, channels) if self.on_input else nn.Identity()
        if not self.cell.noise:
            return norm
        return nn.Sequential(norm, DistributionNoise(seed=1000 * self.cell.seed + self.count))


def _create(cell: Cell, channels: int) -> nn.Module:
    options: dict[str, Any] = dict(cell.norm_options)
    norm = create(cell.norm, channels, channels_first=True, **options)
    return norm if cell.affine else _freeze_affine(norm)


def _freeze_affine(norm: nn.Module) -> nn.Module:
    """Keep γ = 1 and β = 0, as they begin."""
    return norm.requires_grad_(False)


def _built_in(cell: Cell, data: Data, norms: _Norms) -> nn.Module:
    factory = SUBJECTS[cell.subject].build
    return factory(data.inputs, data.outputs, norm=norms, placement=cell.placement)


def _own(cell: Cell, norms: _Norms) -> nn.Module:
    """The user's model: its factory takes norm=, or its normalization layers are replaced."""
    if not lookup.is_path(cell.subject):
        raise UnknownNameError("subject", cell.subject, [*SUBJECTS, "package.module:factory"])
    factory = lookup.resolve(cell.subject, "model")
    arguments = _arguments(factory, cell, norms)
    model = _call(arguments, cell)
    if "norm" not in arguments:
        model, norms.count = replace_norms(model, norms)
    if norms.count == 0:
        raise AnynormError(_NOTHING_TO_NORMALIZE.format(name=cell.subject))
    return model


_NOTHING_TO_NORMALIZE = (
    "model {name!r} has no place for a normalizer. Either give its factory an argument norm= and "
    "call norm(channels) wherever a normalizer belongs, or return a model with normalization "
    "layers of torch.nn (such as BatchNorm2d), which the study then replaces."
)


def _arguments(factory: Any, cell: Cell, norms: _Norms) -> dict[str, Any]:
    taken = inspect.signature(factory).parameters
    if cell.placement != "before" and "placement" not in taken:
        raise AnynormError(
            f"placement {cell.placement!r}: the factory {cell.subject!r} takes no placement= "
            "argument, so its normalizers stay where they are; add one, or leave this out."
        )
    offered = {"norm": norms, "placement": cell.placement}
    return {name: value for name, value in offered.items() if name in taken}


def _call(arguments: dict[str, Any], cell: Cell) -> nn.Module:
    model = lookup.called(cell.subject, "model", **arguments)
    if not isinstance(model, nn.Module):
        raise AnynormError(
            f"model {cell.subject!r} gave a {type(model).__name__}; "
            "the factory must return a torch.nn.Module."
        )
    return model


def _scale_weights(model: nn.Module, factor: float) -> None:
    for place in walk(model):
        if isinstance(place.module, (*_WEIGHTED, nn.RNNBase)):
            _scale(place.module.parameters(recurse=False), factor)


def _scale(parameters: Iterable[nn.Parameter], factor: float) -> None:
    for parameter in parameters:
        if parameter.ndim >= 2:
            parameter.data.mul_(factor)


def _normalize_weights(model: nn.Module, cell: Cell) -> nn.Module:
    """Normalize the weights of every linear or convolutional layer but the last, the head."""
    places = [place for place in walk(model) if isinstance(place.module, _WEIGHTED)]
    options: dict[str, Any] = dict(cell.norm_options)
    for place in places[:-1]:
        layer = normalized(place.module, cell.norm, **options)
        model = put(model, place, layer)
    return model
