"""The change of each unit's distribution during training, on one fixed probe batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from anynorm.study.probes.hidden import (
    activation_of,
    hidden_layers,
    pre_activations,
    unit_axes,
)

__all__ = ["KEYS", "PERCENTILES", "Distribution", "Tracker"]

KEYS = ("mean_shift", "log_std_shift", "wasserstein", "saturated", "dead", "whiteness")
PERCENTILES = {"p15": 0.15, "p50": 0.50, "p85": 0.85}

# If |z| is larger, the slope of the activation is a small fraction of its maximum.
_SATURATION = {"sigmoid": 4.0, "tanh": 2.0}
_RECTIFIERS = ("relu", "relu6")

# Enough values for percentiles to a few hundredths of σ; a limit for images and wide layers.
_MOST_VALUES = 2048
_MOST_UNITS = 256


@dataclass(frozen=True)
class Distribution:
    """The values of each unit of one layer: sorted (units, values), their mean and their std."""

    values: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, z: Tensor) -> Distribution:
        """Describe `z`, of shape (units, values), on the CPU."""
        # NumPy sorts such rows more than ten times as fast as torch.
        return cls(
            torch.from_numpy(np.sort(z.numpy(), axis=1)), z.mean(dim=1), z.std(dim=1, correction=0)
        )

    def shift_to(self, later: Distribution) -> list[float]:
        """Return the medians over units of |Δμ|/σ, |Δ log σ| and Wasserstein-1/σ, with own σ."""
        shifts = (
            (later.mean - self.mean).abs() / self.std,
            (later.std.log() - self.std.log()).abs(),
            (later.values - self.values).abs().mean(dim=1) / self.std,
        )
        medians: list[float] = torch.nanquantile(torch.stack(shifts), 0.5, dim=1).tolist()
        return medians


class Tracker:
    """Measures the hidden units of a model on one probe batch, and the change since the last time.

    It measures the inputs of each activation, in order of execution; in a model without
    activations, the inputs of its weight layers after the first. The units are the last axis after
    a linear layer, as in (N, T, C), and otherwise axis 1. If a module is called many times in one
    pass, as in a recurrent net, the last call counts. In layers with more than 2,048 values per
    unit, a fixed sample of the values is used.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._model, self._x = model, x
        self._watched = hidden_layers(model, x)
        self._axes = unit_axes(model, x)
        self._last: dict[str, Distribution] = {}

    @property
    def layers(self) -> list[str]:
        """Names of the watched modules."""
        return list(self._watched)

    def measure(self) -> dict[str, list[float]]:
        """Return one number per layer for each of `KEYS`, and three of `PERCENTILES`.

        ``mean_shift`` |Δμ|/σ, ``log_std_shift`` |Δ log σ| and ``wasserstein`` W₁/σ compare each
        unit with the previous measurement, whose σ is used; they are medians over the units, and
        nan the first time. ``saturated`` is the share of |z| > 4 before a sigmoid, > 2 before a
        tanh; ``dead`` the share of ReLU units at zero on the whole batch; nan before other
        activations. ``whiteness`` is the mean absolute correlation between two units, at most 256
        of them, without constant ones. ``percentiles`` are those of the last layer's first unit.
        """
        inputs = pre_activations(self._model, self._watched, self._x)
        rows = [self._measure(name, _by_unit(z, self._axes[name])) for name, z in inputs.items()]
        found = {key: [row[at] for row in rows] for at, key in enumerate(KEYS)}
        unit = self._last[self.layers[-1]].values[0]
        levels = torch.tensor(list(PERCENTILES.values()), dtype=unit.dtype)
        return {**found, "percentiles": torch.quantile(unit, levels).tolist()}

    def _measure(self, name: str, z: Tensor) -> tuple[float, ...]:
        activation, sample = activation_of(self._watched[name]), _sample(z)
        now = Distribution.of(sample)
        before = self._last.get(name)
        shifts = [math.nan] * 3 if before is None else before.shift_to(now)
        self._last[name] = now
        return (*shifts, _saturated(activation, z), _dead(activation, z), _whiteness(sample))


def _by_unit(z: Tensor, axis: int) -> Tensor:
    """Return `z` as (units, values) in float64 on the CPU, all positions of a unit in a row."""
    return z.double().movedim(axis, 0).flatten(1).cpu().contiguous()


def _sample(z: Tensor) -> Tensor:
    """Return at most `_MOST_VALUES` of each unit, always at the same samples and positions."""
    if z.shape[1] <= _MOST_VALUES:
        return z
    # A random sample, since every k-th value could be the same pixel of every image.
    order = torch.randperm(z.shape[1], generator=torch.Generator().manual_seed(0))
    return z[:, order[:_MOST_VALUES]]


def _saturated(activation: str, z: Tensor) -> float:
    limit = _SATURATION.get(activation)
    return math.nan if limit is None else (z.abs() > limit).double().mean().item()


def _dead(activation: str, z: Tensor) -> float:
    if activation not in _RECTIFIERS:
        return math.nan
    return (z.amax(dim=1) <= 0).double().mean().item()


def _whiteness(z: Tensor) -> float:
    units = z[torch.linspace(0, len(z) - 1, min(len(z), _MOST_UNITS)).long()]
    centred = units - units.mean(dim=1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    scaled = (centred / length)[length.flatten() > 0]
    correlation = (scaled @ scaled.T).abs()
    pairs = len(correlation) * (len(correlation) - 1)
    return ((correlation.sum() - correlation.trace()) / pairs).item() if pairs else math.nan
