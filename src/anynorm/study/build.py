"""Build the initialised model of a cell: the subject, its normalizers and its initial scale."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import nn

from anynorm import lookup
from anynorm.errors import AnynormError, UnknownNameError, type_of
from anynorm.nn import normalized
from anynorm.study.cell import Cell
from anynorm.study.data import Data, seeded
from anynorm.study.norm_argument import Norms, freeze_affine
from anynorm.study.subjects import SUBJECTS, Subject
from anynorm.surgery import put, replace_norms, walk
from anynorm.surgery.recognized import candidates

__all__ = ["build", "has_attention"]

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def build(cell: Cell, data: Data) -> nn.Module:
    """Return the model of `cell` before training; the same cell gives the same weights.

    The same seed gives the same weights with every normalizer. Raises `AnynormError` if the subject
    is unknown, its factory cannot be used, or it has no place for the normalizer of the cell.
    """
    norms = Norms(cell)
    with seeded(cell.seed):
        made = _built_in if cell.subject in SUBJECTS else _own
        model = made(cell, data, norms)
    if norms.qk and norms.qk_count == 0:
        raise AnynormError(_NOTHING_TO_NORMALIZE_QK.format(name=cell.subject))
    _scale_weights(model, cell.init)
    return model if norms.on_input else _normalize_weights(model, cell, norms.options)


def has_attention(subject: str, placement: str) -> bool:
    """Whether a user's model contains attention; it then needs AdamW with warm-up, not SGD.

    It does if the class of one of its modules has "attention" in its name, such as torch.nn's
    MultiheadAttention, which every layer of torch.nn.Transformer contains. Raises `AnynormError` if
    the model cannot be built.
    """
    cell = Cell(subject=subject, data="", norm="none", placement=placement, lr=1.0, steps=1, seed=0)
    with seeded(0):
        model, _ = _made(cell, Norms(cell))
    return any("attention" in type(module).__name__.lower() for module in model.modules())


def _built_in(cell: Cell, data: Data, norms: Norms) -> nn.Module:
    subject = SUBJECTS[cell.subject]
    _check_fits(cell, subject, data)
    return subject.build(data.inputs, data.outputs, norm=norms.function(), placement=cell.placement)


def _check_fits(cell: Cell, subject: Subject, data: Data) -> None:
    """Raise an error if the subject cannot read the data, or does not have the placement."""
    if subject.reads_characters != (data.task == "language"):
        takes = "takes sequences" if subject.reads_characters else "takes no sequences"
        raise AnynormError(
            f"{cell.subject!r} {takes} of characters, and data {cell.data!r} is a {data.task} of "
            f"samples of shape {data.inputs}. Its own data is {subject.settings.data!r}."
        )
    if cell.placement not in subject.placements:
        own = " or ".join(map(repr, subject.placements))
        raise AnynormError(
            f"placement {cell.placement!r}: {cell.subject!r} has no such place. Choose {own}."
        )


def _own(cell: Cell, data: Data, norms: Norms) -> nn.Module:
    """The user's model: its factory takes norm=, or its normalization layers are replaced."""
    model, takes_norm = _made(cell, norms)
    if not takes_norm:
        # `replace_norms` gives every normalizer its channels on axis 1.
        make = partial(norms.make, channels_last=False)
        # Only norms of classes of their own need to be seen at work.
        example = data.train_x[:2] if candidates(model) else None
        model, norms.count = replace_norms(model, make, example)
    if norms.count == 0:
        raise AnynormError(_NOTHING_TO_NORMALIZE.format(name=cell.subject))
    return model


def _made(cell: Cell, norms: Norms) -> tuple[nn.Module, bool]:
    """What the user's factory returns, and whether it takes norm=."""
    if not lookup.is_path(cell.subject):
        raise _unknown(cell.subject)
    factory = lookup.resolve(cell.subject, "model")
    arguments = _arguments(factory, cell, norms)
    return _call(arguments, cell), "norm" in arguments


def _unknown(name: str) -> AnynormError:
    error = UnknownNameError("model", name, [*SUBJECTS, "package.module:factory"])
    module, dot, factory = name.rpartition(".")
    if not (dot and module and factory):
        return error
    return AnynormError(f"{error} Write your own factory after a colon: {module}:{factory}.")


_NOTHING_TO_NORMALIZE = (
    "model {name!r} has no place for a normalizer. Either give its factory an argument norm= and "
    "call norm(channels) wherever a normalizer belongs, or return a model with normalization "
    "layers of torch.nn (such as BatchNorm2d), or layers that compute the same, which the study "
    "then replaces."
)


_NOTHING_TO_NORMALIZE_QK = (
    "qk=true: model {name!r} has no normalizers of queries and keys. Its factory takes norm= and "
    "applies norm(width, qk=True) to the queries and to the keys of each head; or leave qk out."
)


def _arguments(factory: Any, cell: Cell, norms: Norms) -> dict[str, Any]:
    taken = inspect.signature(factory).parameters
    if cell.placement != "before" and "placement" not in taken:
        raise AnynormError(
            f"placement {cell.placement!r}: the factory {cell.subject!r} takes no placement= "
            "argument, so its normalizers stay where they are; add one, or leave this out."
        )
    offered = {"norm": norms.function(), "placement": cell.placement}
    return {name: value for name, value in offered.items() if name in taken}


def _call(arguments: dict[str, Any], cell: Cell) -> nn.Module:
    model = lookup.called(cell.subject, "model", **arguments)
    if not isinstance(model, nn.Module):
        raise AnynormError(
            f"model {cell.subject!r} returned {type_of(model)}; "
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


def _normalize_weights(model: nn.Module, cell: Cell, options: Mapping[str, Any]) -> nn.Module:
    """Normalize the weights of every linear or convolutional layer except the last, the head."""
    places = [place for place in walk(model) if isinstance(place.module, _WEIGHTED)]
    for place in places[:-1]:
        layer = normalized(place.module, cell.norm, **options)
        model = put(model, place, layer if cell.affine else freeze_affine(layer))
    return model
