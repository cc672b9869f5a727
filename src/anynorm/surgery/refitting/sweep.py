"""Refit the layers that read channels, one after the other, while channels are cut."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch import distributed as dist

from anynorm.surgery.batches import Batch, Forward, call, each, once
from anynorm.surgery.modes import evaluating, without_fast_path
from anynorm.surgery.refitting.dense import DenseCall, DenseCalls
from anynorm.surgery.refitting.elimination import elimination_costs
from anynorm.surgery.refitting.normal_equations import Fit, NormalEquations
from anynorm.surgery.refitting.readers import Reader
from anynorm.surgery.refitting.sensitivity import Layer, sensitivities

__all__ = ["Reached", "Refit", "Refitted", "calls_of"]


class Reached(BaseException):
    """Ends a forward pass at the last call of a layer; no model catches it by accident."""


@dataclass
class Refitted:
    """The layers that were solved anew, without some channels.

    `layers` has their weights and biases, `fits` the solutions, and `costs` what cutting each of
    the other channels would add to the squared error of the outputs.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    fits: dict[str, Fit] = field(default_factory=dict)
    costs: dict[int, float] = field(default_factory=dict)

    def summary(self) -> str:
        """How many layers were solved, and how well the worst of them can be."""
        if not self.fits:
            return "no layer reads the cut channels"
        worst = max(self.fits, key=lambda name: self.fits[name].error)
        return (
            f"{len(self.fits)} layers, whose outputs differ by {self._middle:.2g} of their "
            f"variance in the median and by {self.fits[worst].error:.2g} in {worst!r}"
        )

    @property
    def _middle(self) -> float:
        return statistics.median(fit.error for fit in self.fits.values())


def calls_of(
    model: nn.Module,
    reader: Reader,
    batch: Batch,
    forward: Forward | None,
    layers: Mapping[str, Layer],
) -> list[DenseCall]:
    """The calls of a layer when others are solved, from a forward pass that ends there."""
    found: list[DenseCall] = []

    def handle(name: str, dense: DenseCall) -> Tensor:
        if name == reader.name:
            found.append(dense)
            if len(found) == len(reader.uses):
                raise Reached
        return dense.run(*layers.get(name, (dense.weight, dense.bias)))

    weights = {name: model.get_parameter(name) for name in {reader.name, *layers}}
    with evaluating(model), without_fast_path(), DenseCalls(weights, handle), suppress(Reached):
        call(model, batch, forward)
    return found


class Refit:
    """Solves the layers of a model for the outputs that they have before channels are cut.

    A layer's targets are its outputs in the uncut model, its inputs those that it gets when the
    layers before are solved and the channels are gone, so later layers make up for errors of
    earlier ones (He et al. 2017, arXiv:1707.06168).

    Args:
        model: the uncut model, which is not changed.
        readers: its layers that read channels, in order of execution.
        batches: inputs, as a loader gives them.
        forward: how the model is called.
        group: the process group whose ranks are pooled; None for the default group.
    """

    def __init__(
        self,
        model: nn.Module,
        readers: list[Reader],
        batches: Iterable[Batch],
        forward: Forward | None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self._model, self.readers, self._forward, self._group = model, readers, forward, group
        self._batches = list(each(batches)) if once(batches) else batches

    def without(
        self, cut: Collection[int], among: Collection[int] = (), start: Refitted | None = None
    ) -> Refitted:
        """Solve the layers without the channels `cut`.

        For the channels `among`, the costs are measured too, where the outputs depend on layers as
        in the model with those of `start`.
        """
        found = Refitted()
        matter = self._sensitivities({} if start is None else start.layers) if among else {}
        for reader in self.readers:
            solved, measured = reader.reads(cut), reader.name in matter and reader.reads(among)
            if not (solved or measured):
                continue
            sums = self._summed(reader, cut, found)
            if not sums.rows:
                continue  # its calls are not seen
            fit = sums.solve()
            if solved:
                found.fits[reader.name] = fit
                found.layers[reader.name] = self._layer(reader, cut, fit)
            if measured:
                _add_costs(found.costs, reader, cut, among, fit, matter[reader.name])
        return found

    def _sensitivities(self, layers: Mapping[str, Layer]) -> dict[str, Tensor]:
        names = [reader.name for reader in self.readers]
        return sensitivities(self._model, self._batches, self._forward, names, layers, self._group)

    def _summed(self, reader: Reader, cut: Collection[int], found: Refitted) -> NormalEquations:
        """The normal equations of a layer, from one pass over the batches."""
        left = reader.left(cut)
        sums = NormalEquations(reader.matrix(self._model.get_parameter(reader.name))[..., left])
        half = 0
        for batch in each(self._batches):
            run = partial(calls_of, self._model, reader, batch, self._forward)
            targets, calls = run({}), run(found.layers)
            for target, dense in zip(targets, calls, strict=True):
                outputs = target.run(target.weight, target.bias)
                for rows, values in dense.pieces(outputs):
                    sums.add(half, rows[..., left], values)
                    half = 1 - half
        sums.over_ranks(self._group)
        return sums

    def _layer(self, reader: Reader, cut: Collection[int], fit: Fit) -> Layer:
        """The weight and bias of a solution, with zeros for the channels that are cut."""
        weight = self._model.get_parameter(reader.name)
        matrix = torch.zeros_like(reader.matrix(weight), dtype=fit.matrix.dtype)
        matrix[..., reader.left(cut)] = fit.matrix[..., :-1]
        return reader.weight(matrix).to(weight), fit.matrix[..., -1].flatten().to(weight)


def _add_costs(
    costs: dict[int, float],
    reader: Reader,
    cut: Collection[int],
    among: Collection[int],
    fit: Fit,
    matter: Tensor,
) -> None:
    """Add the cost of each channel at one layer to its costs at the others."""
    gone = torch.isin(reader.outputs, torch.tensor(sorted(cut))).to(matter.device)
    weights = matter.masked_fill(gone, 0) / len(reader.uses)
    inverse = torch.cholesky_inverse(fit.factor)
    blocks = reader.blocks(cut, among)
    for root, cost in elimination_costs(inverse, fit.matrix, weights, blocks).items():
        costs[root] = costs.get(root, 0.0) + cost
