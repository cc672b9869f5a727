"""Names of layers for readers: a module that has only a number is counted in its group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["readable"]


def readable(names: Sequence[str]) -> list[str]:
    """Return the names of layers with places in the order of the network for bare numbers.

    The numbers of modules skip the activations between layers: "hidden.3" is often the second.

    >>> readable(["0", "3", "6"])
    ['layer 1', 'layer 2', 'layer 3']
    >>> readable(["hidden.0", "hidden.3", "head"])
    ['hidden 1', 'hidden 2', 'head']
    """
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        group, number = _split(name)
        seen[group] += 1
        found.append(f"{group} {seen[group]}" if number else name)
    # Two layers never share a name.
    return found if len(set(found)) == len(found) else list(names)


def _split(name: str) -> tuple[str, str]:
    """Return the group of a layer, and its number if its own name is only that."""
    group, _, own = name.rpartition(".")
    if not own.isdigit():
        return name, ""
    return ("layer" if group.replace(".", "").isdigit() or not group else group), own
