"""Layers that share statistics with other processes: how they are copied, named and shown."""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import Any

import torch

from anynorm.functional import Sync
from anynorm.nn.scripting import Unscripted

__all__ = ["Sharing", "layer_of", "shown"]


class Sharing(Unscripted):
    """A layer with `sync`, which copies share: a process group cannot be copied."""

    sync: Sync = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self.sync)] = self.sync
        new: Any = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(deepcopy(self.__dict__, memo))
        return new


def layer_of(layer: Any) -> str:
    """Return what errors call a layer: its class, its channels, and its name in the model.

    The model is the outermost module whose call led here the first time.

    >>> from anynorm import BatchNorm1d
    >>> layer_of(BatchNorm1d(3))
    'BatchNorm1d(3)'
    """
    size = getattr(layer, "num_features", None) or layer.channels
    channels = size[0] if isinstance(size, tuple) and len(size) == 1 else size
    return f"{type(layer).__name__}({channels})" + _name(layer)


def _name(layer: Any) -> str:
    if torch.compiler.is_compiling():
        return ""
    kept = layer.__dict__
    if "_named" not in kept:
        model = _outermost()
        names = (name for name, module in model.named_modules() if module is layer)
        kept["_named"] = f" {name!r}" if (name := next(names, "")) else ""
    named: str = kept["_named"]
    return named


def _outermost() -> torch.nn.Module:
    """The outermost module that is being called."""
    frame, found = sys._getframe(), torch.nn.Module()
    while frame.f_back is not None:
        frame = frame.f_back
        owner = frame.f_locals.get("self")
        found = owner if isinstance(owner, torch.nn.Module) else found
    return found


def shown(sync: Any) -> str:
    """Return how `repr` shows the processes that statistics are shared with."""
    if sync is None:
        return ""
    named = sync if isinstance(sync, int) else type(sync).__name__
    return f", sync={named}"
