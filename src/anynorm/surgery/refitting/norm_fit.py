"""Fit γ, β and α of a new normalizer to the outputs of another, by least squares."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from anynorm.nn import DynamicTanh, Norm
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refitting.normal_equations import NormalEquations
from anynorm.surgery.replace import Rows
from anynorm.surgery.streaming_stats import double

__all__ = ["NormFit", "plain"]

_ALPHAS = tuple(2.0 ** (step / 2) for step in range(-8, 5))  # times 1 / RMS of an input
_TINY = 1e-12


class NormFit:
    """Fits the normalizer in place of `old` itself: γ and β for each channel.

    Of a dynamic tanh, each of several α gets its own γ and β, and the best is taken, by the error
    on samples that were not used.  The smallest α are nearly linear, the largest saturate.
    """

    def __init__(self, place: nn.Module, old: Normalizer) -> None:
        self._place, self._old = place, old
        self.layer: Any = place.inner if isinstance(place, Rows) else place
        self._tried: list[tuple[nn.Module, NormalEquations]] = []

    @property
    def possible(self) -> bool:
        """Whether there is one γ for each channel."""
        gain = self.layer.weight
        return gain is not None and gain.dim() == 1 and len(gain) == self._old.channels

    def add(self, x: Tensor, target: Tensor) -> None:
        """Add an input, with the output that it should have before any activation."""
        self._tried = self._tried or list(self._to_try(x))
        axis = self._old.channel_axis(x.dim())
        for layer, sums in self._tried:
            for rows, values in zip(_halves(layer(x)), _halves(target), strict=True):
                sums.add(_by_channel(rows, axis), _by_channel(values, axis))

    def solve(self) -> None:
        """Write the parameters."""
        fits = [(layer, sums.solve()) for layer, sums in self._tried]
        layer, best = min(fits, key=lambda one: one[1].error)
        self.layer.weight.copy_(best.matrix[:, 0, 0] - self._offset)
        if self.layer.bias is not None:
            self.layer.bias.copy_(best.matrix[:, 0, 1])
        if isinstance(self.layer, DynamicTanh):
            self.layer.alpha.copy_(layer.get_parameter("alpha"))

    @property
    def _offset(self) -> float:
        """What the layer adds to its parameter for γ."""
        return self.layer.spec.learned.offset if isinstance(self.layer, Norm) else 0.0

    def _to_try(self, x: Tensor) -> Iterator[tuple[nn.Module, NormalEquations]]:
        """The layer with γ = 1 and β = 0, once or with each α, and its sums."""
        start = (self.layer.weight + self._offset)[:, None, None]
        scale = x.square().mean().sqrt().clamp_min(_TINY)
        for alpha in _ALPHAS if isinstance(self.layer, DynamicTanh) else (None,):
            layer = plain(self._place, 1 - self._offset)
            if alpha is not None:
                layer.get_parameter("alpha").fill_(alpha / scale)
            yield layer, NormalEquations(start, constant=self.layer.bias is not None)


def plain(layer: nn.Module, unit: float | None = None) -> nn.Module:
    """A copy of a normalizer without activation and hooks; with γ = `unit` and β = 0 if given."""
    found = copy.deepcopy(layer).eval()
    for module in found.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
        if getattr(module, "activation", None) is not None:
            module.activation = None  # type: ignore[assignment]
        for key in ("drop", "act"):  # of the fused layers of image model collections
            if key in module._modules:
                module._modules[key] = nn.Identity()
        weight, bias = (module._parameters.get(key) for key in ("weight", "bias"))
        if unit is not None and weight is not None:
            weight.data.fill_(unit)
        if unit is not None and bias is not None:
            bias.data.zero_()
    return found


def _halves(y: Tensor) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = y.split(-(-len(y) // 2))
    return parts


def _by_channel(y: Tensor, axis: int) -> Tensor:
    """The values as (channels, rows, 1)."""
    return double(y.movedim(axis, 0).flatten(1))[..., None]
