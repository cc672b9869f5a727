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
        tensors = _tensors(state, layer, ("weight", "bias"))
        if tensors is not None and _joined(layer, "running_var") not in state:
            gain, bias = tensors
            found[layer] = [Foldable(layer, Affine(gain + offset, bias), whole=False)]
    return found


def batch_norms(
    state: Mapping[str, Tensor], eps: Mapping[str, float | None]
) -> dict[str, list[Foldable]]:
    """The batch norms of a checkpoint by their names; one map for each ε that it may have."""
    found: dict[str, list[Foldable]] = {}
    for name in state:
        layer, _, last = name.rpartition(".")
        tensors = _tensors(state, layer, ("running_var", "running_mean", "weight", "bias"))
        if last != "running_var" or tensors is None:
            continue
        variance, mean, gain, bias = tensors
        known = eps.get(layer)
        for one in _USUAL_EPS if known is None else (known,):
            a = gain * (variance + one).rsqrt()
            found.setdefault(layer, []).append(Foldable(layer, Affine(a, bias - mean * a), True))
    return found


# What stands for a tensor that a layer does not have.
_DEFAULTS = {"running_mean": 0.0, "weight": 1.0, "bias": 0.0}


def _tensors(
    state: Mapping[str, Tensor], layer: str, names: Sequence[str]
) -> tuple[Tensor, ...] | None:
    """The tensors of a layer as vectors of one size; None if they are those of another layer."""
    first = state.get(_joined(layer, names[0]))
    if first is None:
        return None
    others = [state.get(_joined(layer, name)) for name in names[1:]]
    filled = [
        torch.full_like(first, _DEFAULTS[name]) if found is None else found
        for name, found in zip(names[1:], others, strict=True)
    ]
    alike = all(one.shape == first.shape for one in filled)
    return tuple(double(one).flatten() for one in (first, *filled)) if alike else None


def _joined(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name
