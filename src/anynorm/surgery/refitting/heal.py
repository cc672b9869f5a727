"""Fit a model whose normalizers were replaced to the outputs that its layers had before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.surgery.batches import Batch, Forward, call, each
from anynorm.surgery.call_args import input_of
from anynorm.surgery.channels import analyse
from anynorm.surgery.graph import Graph
from anynorm.surgery.modes import evaluating, without_fast_path
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.recalibrate import recompute
from anynorm.surgery.receipt import Log
from anynorm.surgery.refitting.norm_fit import NormFit, plain
from anynorm.surgery.refitting.normal_equations import NormalEquations
from anynorm.surgery.refitting.pairs import Reached, add_pairs, pairs_of
from anynorm.surgery.refitting.readers import Reader, readers

__all__ = ["heal"]


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
        batches: inputs, as a loader gives them, for one pass for each layer and model.
        forward: how the models are called.
    """
    healing = _Healing(model, before, batches, forward)
    order = {node: place for place, node in enumerate(graph.nodes.nodes)}
    norms: dict[int, Callable[[], bool]] = {
        order[calls[0].nodes[0]]: partial(healing.norm, norm, len(calls))
        for name, norm in replaced.items()
        if (calls := graph.calls.get(name))
    }
    if not norms:
        return 0
    dense: dict[int, Callable[[], bool]] = {
        order[reader.uses[0].node]: partial(healing.dense, reader)
        for reader in readers(analyse(graph))
        # Not a weight that also is something else, such as an embedding.
        if len(graph.users[reader.name]) == len(reader.uses)
    }
    behind = {place: fit for place, fit in dense.items() if place > min(norms)}
    return sum(fit() for _, fit in sorted({**norms, **behind}.items()))


class _Healing:
    """The model before and after, and the inputs."""

    def __init__(
        self,
        model: nn.Module,
        before: nn.Module,
        batches: Iterable[Batch],
        forward: Forward | None,
    ) -> None:
        self._model, self._before, self._batches, self._forward = model, before, batches, forward

    @torch.no_grad()
    def dense(self, reader: Reader) -> bool:
        """Fit a linear layer or convolution; its constant only if it has a bias."""
        weight = self._model.get_parameter(reader.name)
        bias = reader.uses[0].bias
        sums = NormalEquations(reader.matrix(weight), constant=bias is not None)
        given = self._batches, self._forward
        add_pairs(sums, pairs_of(self._before, self._model, reader, *given, {}))
        if not sums.rows:
            return False  # its calls are not seen
        fit = sums.solve()
        weight.copy_(reader.weight(fit.matrix[..., :-1]))
        if bias is not None:
            self._model.get_parameter(bias).copy_(fit.matrix[..., -1].flatten())
        return True

    @torch.no_grad()
    def norm(self, old: Normalizer, calls: int) -> bool:
        """Fit γ and β of the normalizer in place of `old`, if there are any."""
        fit = NormFit(self._model.get_submodule(old.name), old)
        counted = getattr(fit.layer, "num_batches_tracked", None)
        if counted is not None and not int(counted):
            recompute(self._model, self._batches, Log(), forward=self._forward, layers=[old.name])
        if not fit.possible:
            return False
        before = plain(self._before.get_submodule(old.name))
        for batch in each(self._batches):
            wanted = self._inputs(self._before, old.name, batch, calls)
            found = self._inputs(self._model, old.name, batch, calls)
            for x, old_x in zip(found, wanted, strict=True):
                fit.add(x, before(old_x))
        fit.solve()
        return True

    def _inputs(self, model: nn.Module, name: str, batch: Batch, calls: int) -> list[Tensor]:
        """The inputs of a normalizer in a model, copied, since the model may write to them."""
        found: list[Tensor] = []

        def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(input_of(args, kwargs).clone())
            if len(found) == calls:
                raise Reached

        handle = model.get_submodule(name).register_forward_pre_hook(see, with_kwargs=True)
        try:
            with evaluating(model), without_fast_path(), suppress(Reached):
                call(model, batch, self._forward)
        finally:
            handle.remove()
        return found
