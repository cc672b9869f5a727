"""Everything that a check can use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import distributed as dist
from torch import nn
from torch.optim import Optimizer

from anynorm.doctor.drift import Drift, drifts, unseen
from anynorm.doctor.geometry import shares_batch
from anynorm.doctor.record import Record
from anynorm.doctor.survey import Survey
from anynorm.doctor.undecided import Undecided
from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.graph import Graph, capture
from anynorm.surgery.normalizers import Normalizer, normalizers
from anynorm.surgery.recognized import Normalizers

__all__ = ["CannotRunError", "Case", "Found", "Loader", "Numbers", "Outcome"]

Numbers = dict[str, float | int | str]


class Found(NamedTuple):
    """A fault at a layer; `effect` is the measured number divided by its threshold."""

    layer: str
    message: str
    numbers: Numbers
    effect: float
    severity: str = ""  # if it is not the check's default
    fix: str = ""  # likewise


Outcome = Iterator[Found]


class CannotRunError(AnynormError):
    """A check lacks what it needs; the message completes "needs ..."."""


class Loader(NamedTuple):
    """How a loader splits its samples into batches, by its attributes."""

    samples: int
    batch: int
    drops_last: bool


@dataclass
class Case:
    """A model, the measurements on it, and what its user said about it."""

    model: nn.Module
    survey: Survey | None = None
    target: list[Record] | None = None
    source: nn.Module | None = None
    optimizer: Optimizer | None = None
    loader: Loader | None = None
    forward: Forward | None = None
    group: dist.ProcessGroup | None = None
    accumulation: int = 1
    steps: int | None = None
    axis: int | None = None  # the axis of samples, if it was given or the labels show it
    origin: str = ""  # where the weights come from, in words

    @property
    def found(self) -> Normalizers:
        """What normalizes; without batches only layers whose class is known."""
        return Normalizers(self.norms) if self.survey is None else self.survey.found

    @cached_property
    def norms(self) -> list[Normalizer]:
        """The layers in the order of `named_modules`, then the functions."""
        return normalizers(self.model) if self.survey is None else self.survey.norms

    @property
    def layers(self) -> list[str]:
        """The names of the layers that the batches reach, in the order of the forward pass."""
        return [record.norm.name for record in self.measured.records if not record.norm.line]

    @property
    def measured(self) -> Survey:
        """The survey; raises `CannotRunError` if there is none."""
        if self.survey is None:
            raise CannotRunError("batches")
        return self.survey

    @property
    def example(self) -> Batch:
        """The first batch."""
        return self.measured.example

    @property
    def batch_axis(self) -> int:
        """The axis of a batch that has the samples; the first if it is not known."""
        return self.axis or 0

    @cached_property
    def tracking(self) -> list[Normalizer]:
        """The layers that use running statistics in eval mode."""
        return [norm for norm in self.norms if norm.tracks]

    @cached_property
    def batch_like(self) -> list[Record]:
        """The layers that take statistics from all samples, in the order of the forward pass."""
        return [record for record in self.measured.records if shares_batch(record.norm)]

    @cached_property
    def drifts(self) -> list[Drift]:
        """The tests 1 and 2 on the model's own batches."""
        return drifts(self.measured.records)

    @cached_property
    def drifts_averaged(self) -> list[Drift]:
        """The same tests on the model with averaged weights, if there is one."""
        return [] if self.survey is None else drifts(self.survey.averaged or [])

    @cached_property
    def drifts_on_target(self) -> list[Drift]:
        """The same tests on the data of use, if there are any."""
        return drifts(self.target or [])

    @cached_property
    def undecided(self) -> list[Undecided]:
        """The layers with too few data to say whether their statistics are right.

        The table adds the names of the checks.
        """
        found: list[Undecided] = []
        for drift in self.drifts if self.survey is not None else []:
            found += _undecided(drift, 1, 2)
        for number, others in ((13, self.drifts_averaged), (23, self.drifts_on_target)):
            for drift in others:
                found += _undecided(drift, number, number)
        return found

    @cached_property
    def right_with_dropout(self) -> frozenset[str]:
        """The layers whose statistics are those of the data with dropout on, as in training."""
        dropped = self.measured.dropped
        found = drifts(dropped.probes[True].records) if dropped.behind else []
        right = frozenset(drift.record.norm.name for drift in found if not bool(drift.off.any()))
        return right & dropped.behind

    @cached_property
    def graph(self) -> Graph:
        """The model's operators; raises `CannotRunError` if it cannot be traced."""
        try:
            return capture(self.model, self.example, self.forward)
        except AnynormError as error:
            raise CannotRunError(f"a model that can be traced: {error}") from error


def _undecided(drift: Drift, *numbers: int) -> list[Undecided]:
    """Return which deviations the data cannot show in a layer that is not off."""
    if bool(drift.off.any()):
        return []
    name, words = drift.record.norm.name, zip(numbers, unseen(drift), strict=True)
    return [Undecided(number, "", name, message) for number, message in words if message]
