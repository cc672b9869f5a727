"""The normalizers of a model, also those whose class does not say what they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anynorm import nn as own
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.call_info import Seen, observe
from anynorm.surgery.functional_calls import FunctionalCall, Watcher
from anynorm.surgery.normalizers import Normalizer, catalogue_name, normalizer, normalizers
from anynorm.surgery.recognize import Recognition, is_vector, recognize
from anynorm.surgery.walk import Place, walk

__all__ = [
    "Normalizers",
    "candidates",
    "find",
    "find_on",
    "observe_unknown",
    "of_calls",
    "watching",
]


@dataclass(frozen=True)
class Normalizers:
    """The normalizers of a model, and what normalizes in a way that is not known.

    Args:
        norms: the normalizers, in the order of `named_modules`.
        unmatched: the names of other modules that normalize, with what is known of them.
        functional: calls of functions that normalize, by their names.
    """

    norms: list[Normalizer] = field(default_factory=list)
    unmatched: dict[str, str] = field(default_factory=dict)
    functional: dict[str, FunctionalCall] = field(default_factory=dict)


def candidates(model: nn.Module) -> list[nn.Module]:
    """Return the modules that may normalize and whose class does not say how.

    They are subclasses of known layers, and modules of neither torch nor anynorm without children
    and with no other parameters than vectors.

    >>> candidates(nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()))
    []
    """
    return [place.module for place in walk(model) if _may_normalize(place)]


def _may_normalize(place: Place) -> bool:
    norm = normalizer(place)
    if norm is not None:
        return not norm.known
    module = place.module
    if any(map(is_lazy, module.parameters())):
        return False
    foreign = type(module).__module__.partition(".")[0] not in ("torch", "anynorm")
    vectors = all(map(is_vector, module.parameters()))
    return foreign and vectors and not list(module.children())


def find_on(model: nn.Module, example: Batch, forward: Forward | None = None) -> Normalizers:
    """Find the normalizers of a model with the inputs that they get from `example`.

    >>> [norm.family for norm in find_on(nn.BatchNorm1d(3), torch.zeros(2, 3)).norms]
    ['batch']
    """
    return find(model, *observe_unknown(model, candidates(model), example, forward))


def observe_unknown(
    model: nn.Module, layers: Iterable[nn.Module], example: Batch, forward: Forward | None = None
) -> tuple[dict[nn.Module, Seen], dict[str, FunctionalCall]]:
    """Run `model` on `example`: what `layers` are called on, and functions that normalize."""
    calls: dict[str, FunctionalCall] = {}

    def see(call: FunctionalCall) -> None:
        if call.name not in calls:  # without its values, which nothing needs behind the forward
            calls[call.name] = replace(call, x=torch.empty_like(call.x, device="meta"))

    watcher = watching(model, see)
    return observe(model, layers, example, forward, watcher), calls


def watching(model: nn.Module, see: Callable[[FunctionalCall], object]) -> Watcher | None:
    """A watcher for functions that normalize; None if code of the model is compiled."""
    if any(isinstance(m, torch.jit.ScriptModule) or _compiled(m) for m in model.modules()):
        return None
    return Watcher(model, [norm.module for norm in normalizers(model)], see)


def _compiled(module: Any) -> bool:
    return hasattr(module, "_orig_mod") or module._compiled_call_impl is not None


def find(
    model: nn.Module,
    seen: Mapping[nn.Module, Seen],
    functional: Mapping[str, FunctionalCall] | None = None,
) -> Normalizers:
    """Find the normalizers of a model; `seen` has the inputs of its :func:`candidates`."""
    found = Normalizers()
    for place in walk(model):
        x = seen[place.module].single if place.module in seen else None
        known = normalizer(place)
        if x is None or not x.is_floating_point() or not _may_normalize(place):
            found.norms.extend([] if known is None else [known])
            continue
        told = recognize(place.module, x, activation=True)
        if told.spec is not None:
            found.norms.append(_described(place, told, x))
        elif known is not None:
            found.norms.append(known)
        elif told.normalizes:
            found.unmatched[place.names[0]] = f"it normalizes, but {' and '.join(told.evidence)}"
    inside = {name for norm in found.norms for name in norm.place.names} | set(found.unmatched)
    for name, call in (functional or {}).items():
        if call.owner not in inside:
            found.functional[name] = call
    return found


def of_calls(model: nn.Module, calls: Mapping[str, FunctionalCall]) -> list[Normalizer]:
    """Describe calls of functions like layers; those without an equal layer are left out."""
    found = []
    for name, call in calls.items():
        if call.layer is not None and (like := normalizer(Place(call.layer, (name,)))) is not None:
            place = Place(model.get_submodule(call.owner), (name,))
            found.append(replace(like, place=place, layer=call.layer, line=call.line))
    return found


def _described(place: Place, found: Recognition, x: Tensor) -> Normalizer:
    layer = _layer(place.module, found, x)
    return Normalizer(place, catalogue_name(layer), layer=layer, recognition=found)


def _layer(module: nn.Module, found: Recognition, x: Tensor) -> own.Norm:
    """Return anynorm's layer that computes what `module` does, with the module's parameters."""
    assert found.spec is not None
    first = found.spec.pattern.plan(x.dim()).first
    options: dict[str, Any] = {"eps": found.eps, "device": "meta", **(found.sizes or {})}
    options["activation"] = found.activation
    # What was recognized keeps no statistics.
    layer = own.Norm(found.spec, x.shape[first], track_running_stats=False, **options)
    for name, stored in (("weight", found.weight), ("bias", found.bias)):
        if stored is not None:
            setattr(layer, name, _shaped(module.get_parameter(stored), getattr(layer, name)))
    return layer.train(module.training)


def _shaped(parameter: nn.Parameter, like: Tensor) -> nn.Parameter:
    """The parameter itself, or a view with the shape that anynorm's layer has."""
    if parameter.shape == like.shape:
        return parameter
    view = parameter.detach().reshape(like.shape)
    return nn.Parameter(view, requires_grad=parameter.requires_grad)
