"""Layers that share statistics with other processes: how they are copied, named and shown."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from anynorm.functional import Sync
from anynorm.nn.scripting import Unscripted

__all__ = ["Sharing", "layer_of", "shown"]


class Sharing(Unscripted):
    """A layer with `sync`, which copies share: a process group cannot be copied.

    `layer_name` is the layer's name in its model, for errors; `anynorm.convert` sets it.
    """

    sync: Sync = None
    layer_name: str = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self.sync)] = self.sync
        new: Any = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(deepcopy(self.__dict__, memo))
        return new


def layer_of(layer: Any) -> str:
    """Return what errors call a layer: its class, its channels, and its name in the model if known.

    >>> from anynorm import BatchNorm1d
    >>> layer_of(BatchNorm1d(3))
    'BatchNorm1d(3)'
    """
    size = getattr(layer, "num_features", None) or layer.channels
    channels = size[0] if isinstance(size, tuple) and len(size) == 1 else size
    name = f" {layer.layer_name!r}" if layer.layer_name else ""
    return f"{type(layer).__name__}({channels}){name}"


def shown(sync: Any) -> str:
    """Return how `repr` shows the processes that statistics are shared with."""
    if sync is None:
        return ""
    named = sync if isinstance(sync, int) else type(sync).__name__
    return f", sync={named}"
