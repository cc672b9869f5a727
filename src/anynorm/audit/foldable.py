"""What can be folded of the normalizers of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anynorm.surgery.affine import Affine
from anynorm.surgery.streaming_stats import double

__all__ = ["Foldable", "Foldables", "batch_norms", "gains"]

# Those that libraries use; the right one gives the weights that are in the file.
_USUAL_EPS = (1e-5, 1e-3, 1e-4, 1e-6, 1e-12, 0.0)


@dataclass(frozen=True)
class Foldable:
    """What can be folded of a normalizer of a checkpoint: a map a · x + b for each channel.

    It is a whole batch norm, or γ and β of another normalizer.
    """

    layer: str
    affine: Affine
    whole: bool

    @property
    def a(self) -> Tensor:
        """The factor of each channel."""
        return self.affine.a


Foldables = Mapping[str, Sequence[Foldable]]


def gains(state: Mapping[str, Tensor], offsets: Mapping[str, float]) -> dict[str, list[Foldable]]:
    """γ and β of the normalizers of a program that are not batch norms, by their names.

    `offsets` has their names, and what is added to the stored γ of each.
    """
    found: dict[str, list[Foldable]] = {}
    for layer, offset in offsets.items():
        gain = state.get(_joined(layer, "weight"))
        if gain is None or _joined(layer, "running_var") in state:
            continue
        a = double(gain).flatten() + offset
        b = state.get(_joined(layer, "bias"), torch.zeros(()))
        found[layer] = [Foldable(layer, Affine(a, double(b).flatten().expand_as(a)), whole=False)]
    return found


def batch_norms(
    state: Mapping[str, Tensor], eps: Mapping[str, float | None]
) -> dict[str, list[Foldable]]:
    """The batch norms of a checkpoint by their names; one map for each ε that it may have."""
    found: dict[str, list[Foldable]] = {}
    for name, variance in state.items():
        layer, _, last = name.rpartition(".")
        mean = state.get(_joined(layer, "running_mean"))
        if last != "running_var" or mean is None:
            continue
        known = eps.get(layer)
        for one in _USUAL_EPS if known is None else (known,):
            a = (double(variance) + one).rsqrt()
            a = a * double(state.get(_joined(layer, "weight"), torch.ones(())))
            b = double(state.get(_joined(layer, "bias"), torch.zeros(()))) - double(mean) * a
            found.setdefault(layer, []).append(Foldable(layer, Affine(a, b), whole=True))
    return found


def _joined(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name
