"""Refit the layers that read channels, one after the other, while channels are cut."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch import distributed as dist

from anynorm.surgery.batches import Batch, Forward, each, length_of, once
from anynorm.surgery.refitting.dense import Layer
from anynorm.surgery.refitting.elimination import elimination_costs
from anynorm.surgery.refitting.normal_equations import Fit, NormalEquations
from anynorm.surgery.refitting.pairs import (
    Pair,
    Visit,
    add_pairs,
    enough,
    fit_together,
    in_lockstep,
    pairs_of,
)
from anynorm.surgery.refitting.readers import Reader
from anynorm.surgery.refitting.sensitivity import sensitivities

__all__ = ["Refit", "Refitted"]


@dataclass
class Refitted:
    """The layers that were solved anew, without some channels.

    `layers` has their weights and biases, `fits` the solutions, and `costs` what cutting each of
    the other channels would add to the squared error of the outputs.
    """

    layers: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
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
        self._together: bool | None = None

    def without(
        self, cut: Collection[int], among: Collection[int] = (), start: Refitted | None = None
    ) -> Refitted:
        """Solve the layers without the channels `cut`.

        For the channels `among`, the costs are measured too, where the outputs depend on layers as
        in the model with those of `start`.
        """
        found, number = Refitted(), length_of(self._batches)
        matter = self._sensitivities({} if start is None else start.layers) if among else {}

        def visit(reader: Reader, pairs: Iterable[Pair]) -> None:
            weight, left = self._model.get_parameter(reader.name), reader.left(cut)
            sums = NormalEquations(reader.matrix(weight)[..., left])
            add_pairs(sums, pairs, left, most=enough(len(left), number, len(reader.uses)))
            sums.over_ranks(self._group)
            if sums.empty:
                return  # its calls are not seen
            fit = sums.solve()
            if reader.reads(cut):
                found.fits[reader.name] = fit
                found.layers[reader.name] = self._layer(reader, cut, fit)
            if reader.name in matter and reader.reads(among):
                _add_costs(found.costs, reader, cut, among, fit, matter[reader.name])

        self._visit([one for one in self.readers if one.reads({*cut, *among})], found.layers, visit)
        return found

    def _visit(self, stops: list[Reader], layers: Mapping[str, Layer], visit: Visit) -> None:
        """Visit layers in order: in one pass where all batches can wait, else with one for each."""
        if self._together is None:
            self._together = fit_together(
                self._model, self.readers, self._batches, self._forward, self._group
            )
        given = self._batches, self._forward, layers
        if self._together:
            in_lockstep(self._model, stops, *given, visit, self._group)
            return
        for reader in stops:
            visit(reader, pairs_of(self._model, self._model, reader, *given))

    def _sensitivities(self, layers: Mapping[str, Layer]) -> dict[str, Tensor]:
        names = [reader.name for reader in self.readers]
        return sensitivities(self._model, self._batches, self._forward, names, layers, self._group)

    def _layer(self, reader: Reader, cut: Collection[int], fit: Fit) -> tuple[Tensor, Tensor]:
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
