"""One walk over a model's modules, used by everything that changes or inspects them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from anynorm.surgery.model import check_model

__all__ = ["Place", "put", "walk"]


@dataclass(frozen=True)
class Place:
    """A module with all its names in the model.

    Args:
        module: the module.
        names: its names, several if it is tied; "" for the model itself.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> [place.names for place in walk(model)]
        [('',), ('0',)]
    """

    module: nn.Module
    names: tuple[str, ...]


def walk(model: nn.Module) -> list[Place]:
    """Return every module of a model once, the model itself first, in the order of `named_modules`.

    Args:
        model: the model.

    Returns:
        The modules, each with all its names.

    Raises:
        AnynormError: The model is not a module.

    Example:
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
    """Put a module at every name of a place.

    Args:
        model: the model, which is changed itself.
        place: a place of the model.
        module: the new module.

    Returns:
        The model; it is `module` if the place is the model itself.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(3))
        >>> put(model, walk(model)[1], nn.Identity())
        Sequential(
          (0): Identity()
        )
    """
    for name in place.names:
        if name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module)
    return module if "" in place.names else model
