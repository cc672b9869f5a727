"""Fit a model whose normalizers were replaced to the outputs that its layers had before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.surgery.batches import Batch, Forward, call, each, length_of
from anynorm.surgery.channels import analyse
from anynorm.surgery.graph import Graph
from anynorm.surgery.modes import evaluating, without_fast_path
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.recalibrate import recompute
from anynorm.surgery.receipt import Log
from anynorm.surgery.refitting.heal_together import (
    heal_together,
    heals_together,
    inputs_seen,
    products_seen,
)
from anynorm.surgery.refitting.layer_fits import DenseFit, LayerFit, NormFit
from anynorm.surgery.refitting.pairs import Reached
from anynorm.surgery.refitting.readers import readers

__all__ = ["heal"]


@torch.no_grad()
def heal(
    model: nn.Module,
    before: nn.Module,
    replaced: Mapping[str, Normalizer],
    graph: Graph,
    batches: Iterable[Batch],
    forward: Forward | None,
) -> int:
    """Fit `model` itself, layer by layer in order of execution; return how many layers were.

    A new normalizer gets the γ and β, and a linear layer or convolution behind one the weights,
    with which its outputs are nearest to those in the model `before`, by least squares.  Its inputs
    are those that the fitted layers in front of it give.  Running statistics that start anew are
    recomputed first.

    Args:
        model: the changed model.
        before: the model before the change.
        replaced: the normalizers that were replaced, as they were, by name.
        graph: the graph of `before`.
        batches: inputs, as a loader gives them: for one pass of each model if all can wait for each
            other in front of every layer, else for one pass for each layer.
        forward: how the models are called.
    """
    order = {node: place for place, node in enumerate(graph.nodes.nodes)}
    norms = {
        order[calls[0].nodes[0]]: NormFit(model, before, norm, len(calls))
        for name, norm in replaced.items()
        if (calls := graph.calls.get(name))
    }
    dense = {
        order[reader.uses[0].node]: DenseFit(model, reader, length_of(batches))
        for reader in readers(analyse(graph))
        # Not a weight that also is something else, such as an embedding.
        if len(graph.users[reader.name]) == len(reader.uses)
    }
    if not norms:
        return 0
    found: dict[int, LayerFit] = {**norms, **dense}
    fits = [found[place] for place in sorted(found) if place >= min(norms)]
    fit = heal_together if heals_together(model, fits, batches, forward) else _one_by_one
    fit(model, before, fits, batches, forward)
    return sum(fit.done for fit in fits)


def _one_by_one(
    model: nn.Module,
    before: nn.Module,
    fits: Sequence[LayerFit],
    batches: Iterable[Batch],
    forward: Forward | None,
) -> None:
    """Fit layers with one pass for each, in which a batch ends at the layer."""
    for fit in fits:
        if fit.starts_anew:
            recompute(model, batches, Log(), forward=forward, layers=[fit.name])
        for batch in each(batches) if fit.possible else ():
            wanted, found = (_calls(one, fit, batch, forward) for one in (before, model))
            for now, was in zip(found, wanted, strict=True):
                fit.add(now, was)
        fit.solve()


def _calls(model: nn.Module, fit: LayerFit, batch: Batch, forward: Forward | None) -> list[Any]:
    """What the calls of one layer get from a batch."""
    found: list[Any] = []

    def see(_: LayerFit, seen: Any) -> None:
        # A copy, since the model may write to it before the next call.
        found.append(seen.clone() if isinstance(seen, Tensor) else seen)
        if len(found) == fit.calls:
            raise Reached

    watched = inputs_seen(model, [fit], see), products_seen(model, [fit], see)
    with evaluating(model), without_fast_path(), watched[0], watched[1], suppress(Reached):
        call(model, batch, forward)
    return found
