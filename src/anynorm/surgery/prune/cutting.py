"""Cut one model: choose channels, check the cut, and write the log."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from anynorm.errors import AnynormError
from anynorm.report.scales import FLOOR
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.channels import Channels, analyse
from anynorm.surgery.gammas import SEARCH, Gammas
from anynorm.surgery.graph import Graph, capture
from anynorm.surgery.names import Layers, listed, means
from anynorm.surgery.normalizers import normalizers
from anynorm.surgery.prune.absorb import absorb as absorbed
from anynorm.surgery.prune.choose import Choice, Goal, Sizes
from anynorm.surgery.prune.plan import Plan, prefix
from anynorm.surgery.receipt import Difference, Log
from anynorm.surgery.transaction import Trial

__all__ = ["Cutting"]

# What is cut must compute what the model does without those channels, but for rounding.
_SAME = 1e-3


class Cutting:
    """A model, its channels, and how many of them to cut."""

    def __init__(
        self,
        model: nn.Module,
        example: Batch,
        forward: Forward | None,
        goal: Goal,
        ignore: Layers,
        log: Log,
    ) -> None:
        self.model, self.goal, self.log = model, goal, log
        self.trial = Trial(example, forward)
        self.graph: Graph = capture(model, example, forward)
        self.channels: Channels = _with_frozen(analyse(self.graph), model)
        self.state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.state.items()}
        self.sizes = Sizes(
            self.channels, self.shapes, [name for name, _ in model.named_parameters()]
        )
        self.gammas = Gammas.of(model)
        self.kept = self._ignored(ignore)
        self.unsound: dict[int, str] = {}

    def run(self, absorb: bool) -> Plan:
        """Cut the model itself; return the plan, which cuts a fresh model in the same way."""
        cut = self._sound(self._chosen())
        before = self.sizes.parameters(set())
        added: tuple[str, ...] = ()
        if absorb and cut:
            added = absorbed(self.model, self.graph, self.channels, cut, self.log)
        plan = self._plan(cut, added)
        self._write_down(cut)
        plan.apply(self.model, inplace=True)
        after = sum(parameter.numel() for parameter in self.model.parameters())
        self.log.facts["parameters"] = f"{before} -> {after}"
        return plan

    def _chosen(self) -> set[int]:
        return self._choice().cut(self.goal, self.sizes)

    def _choice(self) -> Choice:
        kept = self.kept | set(self.unsound)
        choice = Choice(self.channels, self.state, kept, self.gammas.gap)
        if not choice.order:
            reasons = [f"{name}: {', '.join(why)}" for name, why in self._reasons().items()]
            raise AnynormError(
                f"{type(self.model).__name__} has no channel that can be cut: "
                + "; ".join(reasons or [SEARCH.failure(self.model)])
            )
        return choice

    def _ignored(self, layers: Layers) -> set[int]:
        found: set[int] = set()
        for name in self.channels.scales:
            if any(means(layer, name) for layer in listed(layers)):
                found |= set(self.channels.sites[name, 0].tolist())
        return found

    def _sound(self, cut: set[int]) -> set[int]:
        """Keep layers with constant sizes in their code, which a cut cannot change."""
        if self._wrong(cut) is None:
            return cut
        for space in self._choice().spaces:
            gone = cut & set(space)
            if gone and (why := self._wrong(gone)) is not None:
                self.unsound |= dict.fromkeys(space, why)
        cut = self._chosen()
        if (why := self._wrong(cut)) is not None:
            raise AnynormError(f"the outputs of the cut model are wrong: {why}")
        return cut

    def _wrong(self, cut: set[int]) -> str | None:
        """Why the cut model differs from the model without these channels; None if it does not."""
        smaller = self._plan(cut).apply(self.model)
        try:
            found = self.trial.outputs(smaller)
        except AnynormError as error:
            return f"its code holds sizes as numbers: {error}"
        expected = self.trial.outputs(self._unread(cut))
        apart = Difference.between(expected, found).relative
        return None if apart <= _SAME else f"the outputs are {apart:.2g} apart"

    def _unread(self, cut: set[int]) -> nn.Module:
        """The model with zeros for the weights that read the channels."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for name, axis in self.channels.readers:
                gone = torch.tensor(self._indices(name, axis, cut), dtype=torch.int64)
                weight: Any = model.get_parameter(name)
                weight.index_fill_(axis, gone.to(weight.device), 0)
        return model

    def _plan(self, cut: set[int], added: tuple[str, ...] = ()) -> Plan:
        cuts: dict[str, dict[int, tuple[int, ...]]] = {}
        for name, axis in sorted(self.channels.sites):
            if indices := self._indices(name, axis, cut):
                cuts.setdefault(name, {})[axis] = indices
        for weight, bias in ((f"{at}weight", f"{at}bias") for at in map(prefix, added)):
            cuts[bias] = {0: cuts.get(weight, {}).get(0, ())}
        tied = {name: first for name, first in self.graph.first_names.items() if first in cuts}
        cuts |= {name: cuts[first] for name, first in tied.items()}
        return Plan(cuts, {name: self.shapes[first] for name, first in tied.items()}, added)

    def _indices(self, name: str, axis: int, cut: set[int]) -> tuple[int, ...]:
        labels = self.channels.sites[name, axis].tolist()
        return tuple(index for index, root in enumerate(labels) if root in cut)

    def _reasons(self) -> dict[str, list[str]]:
        found = {}
        for name in self.channels.scales:
            roots = set(self.channels.sites[name, 0].tolist())
            why = self.channels.reasons(name)
            why += ["it is ignored"] if roots & self.kept else []
            why += dict.fromkeys(self.unsound[root] for root in sorted(roots & self.unsound.keys()))
            if why:
                found[name.removesuffix(".weight")] = why
        return found

    def _write_down(self, cut: set[int]) -> None:
        for name in self.channels.scales:
            gone, size = len(self._indices(name, 0, cut)), len(self.channels.sites[name, 0])
            if gone:
                self.log.change(name.removesuffix(".weight"), f"{gone} of {size} channels cut")
        for name, why in self._reasons().items():
            self.log.refuse(name, "; ".join(why))
        choice = self._choice()
        threshold = max((choice.scale[root] for root in cut), default=0.0)
        self.log.facts.update(
            channels=choice.total,
            cut=choice.gone(cut),
            flops=f"{self.sizes.flops(set())} -> {self.sizes.flops(cut)}",
            threshold=threshold,
        )
        if self.goal.gap:
            low, high = self.gammas.gap or (0.0, 0.0)
            self.log.facts["gap"] = f"|γ| from {low:.3g} to {high:.3g}, of all layers"
            if not cut:
                self.log.facts["nothing matched"] = "no channel below the gap can be cut"
        # Only a channel of γ = 0 is constant: of others, what varies goes too.
        if threshold > FLOOR * max(choice.scale.values()):
            self.log.facts["lost"] = f"what varied in channels of |γ| up to {threshold:.3g}"


def _with_frozen(channels: Channels, model: nn.Module) -> Channels:
    """Include the γ of frozen batch norms that are written as arithmetic, not as an operator."""
    names = [f"{norm.name}.weight" for norm in normalizers(model) if norm.constant]
    found = [name for name in names if (name, 0) in channels.sites]
    return replace(channels, scales=tuple(dict.fromkeys((*channels.scales, *found))))
