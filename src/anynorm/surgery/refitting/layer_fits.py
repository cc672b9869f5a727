"""Fit one layer of a changed model to the outputs that it had before, by least squares.

A fit gets the calls of its layer in both models, and then writes the parameters; then it is done.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from anynorm.nn import DynamicTanh, Norm
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refitting.dense import DenseCall
from anynorm.surgery.refitting.normal_equations import NormalEquations
from anynorm.surgery.refitting.pairs import add_pairs, enough
from anynorm.surgery.refitting.readers import Reader
from anynorm.surgery.replace import Rows
from anynorm.surgery.streaming_stats import double

__all__ = ["DenseFit", "LayerFit", "NormFit"]

_ALPHAS = tuple(2.0 ** (step / 2) for step in range(-8, 5))  # times 1 / RMS of an input
_TINY = 1e-12


class DenseFit:
    """Fits a linear layer or convolution itself; its constant only if it has a bias.

    `batches` is how many there will be; None if that is not known.
    """

    possible, starts_anew = True, False

    def __init__(self, model: nn.Module, reader: Reader, batches: int | None) -> None:
        self._model, self._reader, self._batches = model, reader, batches
        self.name, self.calls = reader.name, len(reader.uses)
        self.owner = model.get_submodule(reader.name.rpartition(".")[0])
        self.done = False
        self._sums: NormalEquations | None = None  # only while calls are added, as it is large

    def add(self, now: DenseCall, before: DenseCall) -> None:
        """Add a call, and the one in the model before, whose outputs it should have."""
        old = self._reader.matrix(self._model.get_parameter(self.name))
        constant = self._reader.uses[0].bias is not None
        self._sums = self._sums or NormalEquations(old, constant=constant)
        most = enough(old.shape[-1], self._batches, self.calls)
        add_pairs(self._sums, [(now, before.run(*before.layer))], most=most)

    def solve(self) -> None:
        """Write the weight and bias, if there were calls: torch hides those of some layers."""
        if self._sums is None:
            return
        matrix, bias = self._sums.solve().matrix, self._reader.uses[0].bias
        self._sums, self.done = None, True
        self._model.get_parameter(self.name).copy_(self._reader.weight(matrix[..., :-1]))
        if bias is not None:
            self._model.get_parameter(bias).copy_(matrix[..., -1].flatten())


class NormFit:
    """Fits the normalizer in place of `old` itself: γ and β for each channel.

    Of a dynamic tanh, each of several α gets its own γ and β, and the best is taken, by the error
    on samples that were not used.  The smallest α are nearly linear, the largest saturate.
    """

    def __init__(self, model: nn.Module, before: nn.Module, old: Normalizer, calls: int) -> None:
        self._old, self._before = old, _plain(before.get_submodule(old.name))
        self.name, self.calls = old.name, calls
        self.owner = model.get_submodule(old.name)
        self.layer: Any = self.owner.inner if isinstance(self.owner, Rows) else self.owner
        self.done = False
        self._tried: list[tuple[nn.Module, NormalEquations]] = []

    @property
    def possible(self) -> bool:
        """Whether there is one γ for each channel."""
        gain = self.layer.weight
        return gain is not None and gain.dim() == 1 and len(gain) == self._old.channels

    @property
    def starts_anew(self) -> bool:
        """Whether its running statistics are those of no batch."""
        count = getattr(self.layer, "num_batches_tracked", None)
        return count is not None and not int(count)

    def add(self, now: Tensor, before: Tensor) -> None:
        """Add an input, and the one of the old normalizer, whose output it should give."""
        x, target = now, self._before(before)
        self._tried = self._tried or list(self._to_try(x))
        axis = self._old.channel_axis(x.dim())
        for layer, sums in self._tried:
            for rows, values in zip(_halves(layer(x)), _halves(target), strict=True):
                sums.add(_by_channel(rows, axis), _by_channel(values, axis))

    def solve(self) -> None:
        """Write γ, β and α, if there were calls."""
        if not self._tried:
            return
        fits = [(layer, sums.solve()) for layer, sums in self._tried]
        layer, best = min(fits, key=lambda one: one[1].error)
        self._tried, self.done = [], True
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
        scale = double(x).square().mean().sqrt().clamp_min(_TINY)
        for alpha in _ALPHAS if isinstance(self.layer, DynamicTanh) else (None,):
            layer = _plain(self.owner, 1 - self._offset)
            if alpha is not None:
                layer.get_parameter("alpha").fill_(alpha / scale)
            yield layer, NormalEquations(start, constant=self.layer.bias is not None)


LayerFit = DenseFit | NormFit


def _plain(layer: nn.Module, unit: float | None = None) -> nn.Module:
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
