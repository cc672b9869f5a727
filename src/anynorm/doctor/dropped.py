"""What dropout does to the variance that reaches the layers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.doctor.deviation import Deviation
from anynorm.doctor.probe import Probe
from anynorm.doctor.record import Record
from anynorm.surgery.batches import Batch, Forward, device_of
from anynorm.surgery.modes import evaluating
from anynorm.surgery.sample_units import together

__all__ = ["Dropped", "Ratio", "rate_of"]

BATCHES = 8  # that are measured
DRAWS = 4  # of dropout on each


@dataclass(frozen=True)
class Ratio:
    """The variance that reaches a layer with dropout off over that with it on, and p of 1."""

    record: Record
    ratio: float
    p: float


def rate_of(layer: nn.Module) -> float:
    """The p of a dropout, or of a layer that drops paths as those of many libraries do; else 0.

    >>> rate_of(nn.Dropout2d(0.2)), rate_of(nn.ReLU())
    (0.2, 0.0)
    """
    kind = type(layer).__name__
    if "Drop" not in kind and kind != "StochasticDepth":
        return 0.0
    given = getattr(layer, "p", getattr(layer, "drop_prob", None))
    return float(given) if isinstance(given, (int, float)) else 0.0


class Dropped:
    """The inputs of the normalization layers with dropout on, everything else in eval mode."""

    def __init__(self, model: nn.Module, forward: Forward | None) -> None:
        self.probes = {on: Probe(model, forward) for on in (True, False)}
        self.model, self.batches = model, 0
        self.layers = {n: layer for n, layer in model.named_modules() if rate_of(layer) > 0}
        self.before: dict[str, str] = {}  # the last dropout that ran before each layer
        self._last = ""

    def see(self, batch: Batch) -> None:
        """Measure a batch, if more are needed; none are where no layer lies behind a dropout."""
        if not self.layers or self.batches == BATCHES:
            return
        with _seeded(self.model, self.batches):
            for on, probe in self.probes.items():
                with probe, self._watched(on), evaluating(self.model):
                    for layer in self.layers.values():
                        layer.training = on
                    for draw in range(DRAWS if on else 1):
                        probe.run_as_it_is(batch, again=draw > 0)
                        if not self.behind:
                            self.layers = {}
                            return
        self.batches += 1

    @property
    def behind(self) -> frozenset[str]:
        """The layers that a dropout ran before."""
        return frozenset(name for name, last in self.before.items() if last)

    def ratios(self) -> list[Ratio]:
        """Of each layer behind a dropout, the geometric mean over its channels."""
        pairs = zip(self.probes[False].records, self.probes[True].records, strict=True)
        seen = [(off, on) for off, on in pairs if off.seen and off.finite and on.finite]
        return [_ratio(off, on) for off, on in seen if off.norm.name in self.behind]

    @contextmanager
    def _watched(self, on: bool) -> Iterator[None]:
        """Keep which dropout ran last before each layer was called."""
        self._last = ""
        hooks: list[Any] = []
        if on:
            hooks += [m.register_forward_hook(self._ran(n)) for n, m in self.layers.items()]
            hooks += [
                norm.module.register_forward_pre_hook(self._reached(norm.name))
                for norm in self.probes[True].norms
            ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _ran(self, name: str) -> Any:
        def hook(*_: Any) -> None:
            self._last = name

        return hook

    def _reached(self, name: str) -> Any:
        def hook(*_: Any) -> None:
            self.before.setdefault(name, self._last)

        return hook


def _ratio(off: Record, on: Record) -> Ratio:
    """Sample by sample: both saw the same samples, so that their own noise falls out."""
    variances = [record.inputs.values.variance for record in (off, on)]
    alive: Tensor = (variances[0] > 0) & (variances[1] > 0)
    if not bool(alive.any()):
        return Ratio(off, 1.0, 1.0)
    influences = [
        (record.inputs.units.influences()[1] / variance)[:, alive].mean(dim=1, keepdim=True)
        for record, variance in zip((off, on), variances, strict=True)
    ]
    log = (variances[0] / variances[1])[alive].log().mean()[None]
    return Ratio(off, float(log.exp()), float(Deviation.of(log, together(*influences)).p))


@contextmanager
def _seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """The same masks in every diagnosis; whoever draws the batches draws what they would have."""
    device = device_of(model)
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.manual_seed(seed)
        yield
