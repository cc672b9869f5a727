"""The names of weights, without the prefixes of wrappers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["plain_names", "prefix_hint"]

_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
_PARALLEL = "module."
_AVERAGED = "n_averaged"


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name to the model's own name without wrappers.

    `torch.compile` puts "_orig_mod." before the names of what it wraps, `DistributedDataParallel`
    and `AveragedModel` put "module." before all; the count of the latter is left out.

    >>> plain_names(["module.0.weight", "module._orig_mod.1.weight", "n_averaged"])
    {'module.0.weight': '0.weight', 'module._orig_mod.1.weight': '1.weight'}
    """
    plain = {name: _COMPILED.sub(r"\1", name) for name in names}
    while _wrapped(plain.values()):
        short = {name: own.removeprefix(_PARALLEL) for name, own in plain.items()}
        plain = {name: own for name, own in short.items() if own != _AVERAGED}
    return plain


def _wrapped(names: Iterable[str]) -> bool:
    rest = [name for name in names if name != _AVERAGED]
    return bool(rest) and all(name.startswith(_PARALLEL) for name in rest)


def prefix_hint(missing: list[str], unexpected: list[str]) -> str:
    """Return a hint if the names would fit without a common prefix.

    >>> prefix_hint(["weight"], ["backbone.weight"])
    " Without 'backbone.' the file's names fit: it holds a larger model, of which yours is a part."
    """
    if prefix := _before(missing, unexpected):
        return (
            f" Without {prefix!r} the file's names fit: it holds a larger model, of which yours "
            "is a part."
        )
    if prefix := _before(unexpected, missing):
        return f" With {prefix!r} before them the file's names fit: it holds a part of your model."
    return ""


def _before(short: list[str], long: list[str]) -> str | None:
    """The prefix of most of the `short` names in the `long` ones."""
    ends = set(short)
    found = Counter(
        name[: -len(end)]
        for name in long
        for end in (name.split(".", cut)[-1] for cut in range(1, name.count(".") + 1))
        if end in ends
    )
    best, count = next(iter(found.most_common(1)), (None, 0))
    return best if 2 * count >= len(short) else None
