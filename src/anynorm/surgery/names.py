"""Select layers by name, by the module that contains them, or by a pattern."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from anynorm.errors import AnynormError, nearest, type_of

__all__ = ["Layers", "listed", "matching", "means"]

Layers = str | Sequence[str]


def matching(names: Collection[str], layers: Layers | None, what: str) -> set[str]:
    """Return those of `names` that `layers` selects, or all for None.

    Args:
        names: the names of all layers.
        layers: one or several of: the name of a layer; the name of a module that contains layers,
            such as "encoder" for "encoder.0.norm"; a pattern such as "*.norm1", in which a star
            stands for any characters.
        what: what the layers do, to complete "layers ... do not" in the error.

    Raises:
        AnynormError: An entry of `layers` selects no name.

    Example:
        >>> names = ["encoder.0.norm", "encoder.1.norm", "encoders", "head.norm"]
        >>> sorted(matching(names, "encoder", "normalize"))
        ['encoder.0.norm', 'encoder.1.norm']
        >>> sorted(matching(names, ["*.1.norm", "head.norm"], "normalize"))
        ['encoder.1.norm', 'head.norm']
    """
    if layers is None:
        return set(names)
    wanted = listed(layers)
    found = {one: {name for name in names if means(one, name)} for one in wanted}
    if unknown := [one for one, those in found.items() if not those]:
        raise AnynormError(
            f"layers {unknown} do not {what} here.{nearest(unknown[0], names)} Those that do: "
            f"{sorted(names)}. Give a name, the name of a module that contains some, or a pattern "
            "such as '*.norm1'."
        )
    return set().union(*found.values())


def means(layer: str, name: str) -> bool:
    """Whether an entry of `layers` selects the layer with this name; "" is the whole model."""
    part = f"{layer.removesuffix('.')}."
    return not layer or name == layer or name.startswith(part) or fnmatchcase(name, layer)


def listed(layers: Layers) -> list[str]:
    """Return `layers` as a list of names; raises `AnynormError` if an entry is not a name.

    >>> listed("encoder"), listed(("a", "b"))
    (['encoder'], ['a', 'b'])
    """
    # A string is one name, not a sequence of letters.
    single = isinstance(layers, str) or not isinstance(layers, Iterable)
    wanted: list[Any] = [layers] if single else list(layers)
    if wrong := [one for one in wanted if not isinstance(one, str)]:
        raise AnynormError(
            f"layers has {wrong[0]!r}, {type_of(wrong[0])}; give names, as in "
            "model.named_modules()."
        )
    return wanted
