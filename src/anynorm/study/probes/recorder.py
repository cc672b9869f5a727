"""All probes of one training run, each on its schedule."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from anynorm.errors import UnknownNameError
from anynorm.study.probes import affine, flow, importance, landscape, shift, units
from anynorm.study.probes.channels import channels_of
from anynorm.study.probes.layers import WeightLayer, multiplications, weight_layers
from anynorm.study.probes.objective import Loss, Objective
from anynorm.study.probes.schedule import Schedule
from anynorm.surgery.snapshot import preserved

__all__ = ["Recorder"]

# Models with at most this many multiplications per sample are probed at half of the early steps.
_SMALL = 100_000


class Recorder:
    """Measures a training run of `steps` steps without changing it by a single bit.

    Landscape, covariate shift (optimisation sense) and gradient flow are measured on the
    mini-batch at hand, the units on the fixed batch `probe_x`, all in the model's present mode.
    `layers` names the weight layers whose covariate shift is measured; by default four spread
    over the depth. `seed` draws the steps that are probed (see `Schedule`); by default it is the
    one that torch's generator was last seeded with. `dense` says whether the landscape is probed at
    half of the early steps, not at 16 of them; by default it is for small models. ``seconds`` is
    the processor time spent so far.

    Raises UnknownNameError for a name that is no weight layer.

    >>> import torch
    >>> model, loss_fn = nn.Linear(3, 2), nn.CrossEntropyLoss()
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> x, y = torch.randn(8, 3), torch.tensor([0, 1] * 4)
    >>> recorder = Recorder(model, loss_fn, optimizer, x, steps=10)
    >>> for step in range(10):
    ...     recorder.before_step(step, x, y)
    ...     optimizer.zero_grad()
    ...     loss_fn(model(x), y).backward()
    ...     optimizer.step()
    >>> recorder.result()["flow"]["layers"]
    ['']
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Loss,
        optimizer: Optimizer,
        probe_x: Tensor,
        steps: int,
        layers: Sequence[str] | None = None,
        seed: int | None = None,
        dense: bool | None = None,
    ) -> None:
        self.seconds = 0.0
        self._model, self._loss_fn, self._optimizer = model, loss_fn, optimizer
        seed = torch.initial_seed() if seed is None else seed
        with self._timed():
            if dense is None:
                dense = multiplications(model, probe_x) <= _SMALL
            self._schedule = Schedule.of(steps, seed, dense=dense)
            self._layers = weight_layers(model, probe_x)
            self._units = units.Tracker(model, probe_x)
        self._shifted = _choose(self._layers, layers)
        self._landscape: dict[str, list[Any]] = _columns(["weight", "loss", *landscape.KEYS])
        self._shift: dict[str, list[Any]] = _columns(["weight", *shift.KEYS])
        self._flow: dict[str, list[Any]] = _columns(["weight", *flow.KEYS])
        self._distributions: dict[str, list[Any]] = _columns([*units.KEYS, "percentiles"])
        self._afterwards: dict[str, Any] = {}

    def before_step(self, step: int, x: Tensor, y: Tensor) -> None:
        """Measure what is due at `step` (from 0) on the mini-batch `x`, `y` of that step.

        Call it once per step, before the forward pass or after backward, but not between them.
        """
        with self._timed():
            if step in self._schedule.landscape:
                self._probe_loss(step, x, y)
            if step in self._schedule.units and self._units.layers:
                _append(self._distributions, step, self._units.measure())

    def _probe_loss(self, step: int, x: Tensor, y: Tensor) -> None:
        with preserved(self._model, self._optimizer) as snapshot:
            objective = Objective(snapshot, self._model, self._loss_fn, self._optimizer, x, y)
            due = self._schedule
            _append(self._landscape, step, landscape.measure(objective), due.landscape)
            if step in due.flow and self._layers:
                _append(self._flow, step, flow.measure(objective, self._layers), due.flow)
            if step in due.shift:
                _append(self._shift, step, shift.measure(objective, self._shifted), due.shift)

    def after_training(self, x: Tensor, y: Tensor) -> None:
        """Measure γ and β of batch norm, and the importance of its channels, on `x`, `y`.

        Models without batch norm, or with one that has no γ and β, are left out.
        """
        with self._timed():
            if layers := channels_of(self._model):
                found = importance.measure(self._model, layers, self._loss_fn, x, y)
                self._afterwards["importance"] = found
                self._afterwards["affine"] = affine.measure(self._model, layers, x)

    def result(self) -> dict[str, Any]:
        """Return what was measured so far, as plain lists: one entry per measured step.

        ``weight`` is the number of early steps that a measurement stands for.
        """
        percentiles = self._distributions["percentiles"]
        by_level = {
            level: [row[at] for row in percentiles] for at, level in enumerate(units.PERCENTILES)
        }
        names = [layer.name for layer in self._layers]
        kinds = [type(layer.module).__name__ for layer in self._layers]
        shifted = [layer.name for layer in self._shifted]
        return {
            "landscape": self._landscape,
            "shift": {"layers": shifted, **self._shift},
            "units": {"layers": self._units.layers, **self._distributions, "percentiles": by_level},
            "flow": {"layers": names, "kinds": kinds, **self._flow},
            **self._afterwards,
        }

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            self.seconds += time.process_time() - began


def _choose(layers: list[WeightLayer], names: Sequence[str] | None) -> list[WeightLayer]:
    if names is None:
        return shift.spread(layers)
    by_name = {layer.name: layer for layer in layers}
    for name in names:
        if name not in by_name:
            raise UnknownNameError("weight layer", name, by_name)
    return [by_name[name] for name in names]


def _columns(keys: Iterable[str]) -> dict[str, list[Any]]:
    return {key: [] for key in ("step", *keys)}


def _append(
    table: dict[str, list[Any]],
    step: int,
    row: dict[str, Any],
    weights: Mapping[int, int] | None = None,
) -> None:
    table["step"].append(step)
    if weights is not None:
        table["weight"].append(weights[step])
    for key, value in row.items():
        table.setdefault(key, []).append(value)
