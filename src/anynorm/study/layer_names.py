"""Readable names of layers: a module that has only a number is named by its kind and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

__all__ = ["of_record", "readable"]


def of_record(found: Mapping[str, Any]) -> list[str]:
    """Return readable names of the ``layers`` in the record of a probe."""
    return readable(found.get("layers") or (), found.get("kinds") or ())


def readable(names: Sequence[str], kinds: Sequence[str] = ()) -> list[str]:
    """Return the names of layers, with their place in the network instead of a bare number.

    Modules without parameters are numbered too, so "hidden.3" is often the second layer. `kinds`
    are the classes of the layers, if they are known.

    >>> readable(["0", "3", "7"], ["Conv2d", "Conv2d", "Linear"])
    ['conv 1', 'conv 2', 'linear 1']
    >>> readable(["hidden.0", "hidden.3", "head"])
    ['hidden 1', 'hidden 2', 'head']
    """
    seen: Counter[str] = Counter()
    found = []
    for name, kind in zip_longest(names, kinds[: len(names)], fillvalue=""):
        group, number = _split(str(name), kind)
        seen[group] += 1
        found.append(f"{group} {seen[group]}" if number else str(name))
    # Two layers never share a name.
    return found if len(set(found)) == len(found) else [str(name) for name in names]


def _split(name: str, kind: str) -> tuple[str, str]:
    """Return the group of a layer, and its number if its own name is only that."""
    group, _, own = name.rpartition(".")
    if not own.isdigit():
        return name, ""
    unnamed = group.replace(".", "").isdigit() or not group
    return (_word(kind) if unnamed else group), own


def _word(kind: str) -> str:
    """Return a class in one word: "linear", "conv" or "norm" for the common ones."""
    if "Norm" in kind:
        return "norm"
    return "conv" if kind.startswith("Conv") else kind.lower() or "layer"
