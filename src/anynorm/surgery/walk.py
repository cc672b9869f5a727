"""One walk over a model's modules, used by everything that changes or inspects them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from anynorm.surgery.model import check_model

__all__ = ["Place", "put", "walk"]


@dataclass(frozen=True)
class Place:
    """A module with every name under which the model holds it (several when it is tied)."""

    module: nn.Module
    names: tuple[str, ...]


def walk(model: nn.Module) -> list[Place]:
    """Every module once, the model itself first, in the order of `named_modules`.

    >>> shared = nn.BatchNorm1d(3)
    >>> [place.names for place in walk(nn.Sequential(shared, nn.ReLU(), shared))]
    [('',), ('0', '2'), ('1',)]
    """
    check_model("walk", model)
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return [Place(module, tuple(found)) for module, found in names.items()]


def put(model: nn.Module, place: Place, module: nn.Module) -> nn.Module:
    """Put `module` at every name of `place`; returns the model, which is `module` at the root."""
    for name in place.names:
        if name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module)
    return module if "" in place.names else model
