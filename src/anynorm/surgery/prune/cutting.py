"""Cut one model: choose channels, check the cut, and write the log."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.report.scales import FLOOR
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.channels import Channels, analyse
from anynorm.surgery.gammas import SEARCH, Gammas
from anynorm.surgery.graph import Graph, capture
from anynorm.surgery.names import Layers, listed, means
from anynorm.surgery.normalizers import normalizers
from anynorm.surgery.prune.absorb import absorb as absorbed
from anynorm.surgery.prune.carriers import Strength, strengths
from anynorm.surgery.prune.choose import Choice, Goal, Ranking, Sizes
from anynorm.surgery.prune.constants import Constants
from anynorm.surgery.prune.plan import Plan, prefix
from anynorm.surgery.prune.recorded import state_of
from anynorm.surgery.receipt import Difference, Log
from anynorm.surgery.refitting.dense import DenseCall, DenseCalls
from anynorm.surgery.refitting.readers import Reader, readers
from anynorm.surgery.refitting.refit import Refit, Refitted
from anynorm.surgery.transaction import Trial

__all__ = ["Absorb", "Cutting"]

Absorb = bool | Literal["channel"]

# What is cut must compute what the model does without those channels, but for rounding.
_SAME = 1e-3
# The least share of the channels that a round leaves, before the costs are measured anew.
_LEFT = 0.7


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
        refit: Iterable[Batch] | None = None,
    ) -> None:
        self.model, self.goal, self.log = model, goal, log
        self.trial = Trial(example, forward)
        self.graph: Graph = capture(model, example, forward)
        self.channels: Channels = _with_frozen(analyse(self.graph), model)
        self.state = state_of(model)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.state.items()}
        self.sizes = Sizes(
            self.channels, self.shapes, [name for name, _ in model.named_parameters()]
        )
        self.gammas = Gammas.of(model)
        self.layers = {name: self.channels.sites[name, 0] for name in self.channels.scales}
        self.kept = self._ignored(ignore)
        self.unsound: dict[int, str] = {}
        self.strengths: dict[int, Strength] = {}
        self.ranking = Ranking.by_gamma(self.channels, self.state)
        self.refit: Refit | None = None
        if refit is not None:
            self.refit = Refit(model, readers(self.channels), refit, forward)
            self.unsound |= self._unseen(self.refit.readers)
            if not goal.gap:
                # What reads a channel without a γ is solved anew as well.
                self.channels = replace(self.channels, needed={})
                self.ranking = Ranking.by_cost(self.channels, {}, set())
                self.layers = {**self._without_gamma(), **self.layers}

    def run(self, absorb: Absorb) -> Plan:
        """Cut the model itself; return the plan, which cuts a fresh model in the same way."""
        if absorb == "channel" and self.refit is None:
            self.strengths = strengths(self.graph, self.channels, self.state)
        silent = self._sound(self._chosen())
        carriers = self._choice().carriers(silent)
        cut = silent - carriers
        before = self.sizes.parameters(set())
        added: tuple[str, ...] = ()
        if cut and self.refit is not None:
            added = self._refitted(self.refit.without(cut))
        elif cut and absorb:
            added = absorbed(self.model, self.graph, self.channels, cut, carriers, self.log)
        plan = self._plan(cut, added)
        self._write_down(cut, carriers)
        plan.apply(self.model, inplace=True)
        after = sum(parameter.numel() for parameter in self.model.parameters())
        self.log.facts["parameters"] = f"{before} -> {after}"
        return plan

    def _chosen(self) -> set[int]:
        """The channels that lose what varies in them: those that go, and the carriers."""
        if self.refit is None or self.goal.gap:
            return self._choice().cut(self.goal, self.sizes)
        return self._by_rounds(self.refit)

    def _by_rounds(self, refit: Refit) -> set[int]:
        """Cut a part of the channels, measure what the others cost now, and go on."""
        cut: set[int] = set()
        found = Refitted()
        while True:
            found = refit.without(cut, set(self._choice().order) - cut, found)
            self.ranking = Ranking.by_cost(self.channels, found.costs, cut)
            choice = self._choice()
            goal = choice.cut(self.goal, self.sizes)
            # By the same factor in each round: the last channels matter most.
            remain, final = (len(choice.order) - len(gone) for gone in (cut, goal))
            rounds = math.ceil(math.log(final / remain) / math.log(_LEFT))
            if rounds <= 1:
                return goal
            keep = remain * (final / remain) ** (1 / rounds)
            more = [root for root in choice.order if root in goal - cut]
            cut |= set(more[: remain - math.floor(keep)])

    def _unseen(self, found: list[Reader]) -> dict[int, str]:
        """The channels of layers whose calls a refit cannot see, and why they stay."""
        seen: set[str] = set()

        def handle(name: str, dense: DenseCall) -> Tensor:
            seen.add(name)
            return dense.run(*dense.layer)

        with DenseCalls({one.name: self.model.get_parameter(one.name) for one in found}, handle):
            self.trial.outputs(self.model)
        return {
            root: f"a refit does not see the calls of {one.name!r}, which reads it"
            for one in found
            for root in one.inputs.tolist()
            if one.name not in seen
        }

    @torch.no_grad()
    def _refitted(self, found: Refitted) -> tuple[str, ...]:
        """Write the solved layers into the model; return those with new biases."""
        constants = Constants(self.model, self.graph, self.log)
        assert self.refit is not None
        for reader in self.refit.readers:
            if reader.name in found.layers:
                weight, bias = found.layers[reader.name]
                known = reader.uses[0].bias
                old = bias.new_zeros(()) if known is None else self.model.get_parameter(known)
                constants.add(reader.uses, bias - old)
                self.model.get_parameter(reader.name).copy_(weight)
        self.log.facts["refit"] = found.summary()
        return tuple(constants.biases)

    def _choice(self) -> Choice:
        kept = self.kept | set(self.unsound)
        choice = Choice(self.channels, self.ranking, kept, self.gammas.gap, self.strengths)
        if not choice.order:
            reasons = [f"{name}: {', '.join(why)}" for name, why in self._reasons().items()]
            raise AnynormError(
                f"{type(self.model).__name__} has no channel that can be cut: "
                + "; ".join(reasons or [SEARCH.failure(self.model)])
            )
        return choice

    def _ignored(self, layers: Layers) -> set[int]:
        made = {**self._made(), **self.layers}
        ignored = [name for name in made if any(means(layer, name) for layer in listed(layers))]
        return {root for name in ignored for root in made[name].tolist()}

    def _without_gamma(self) -> dict[str, Tensor]:
        """The channels that layers make and that have no γ."""
        scaled = torch.cat([*self.layers.values(), torch.zeros(1, dtype=torch.int64)])
        made = self._made().items()
        return {name: roots for name, roots in made if not torch.isin(roots, scaled).any()}

    def _made(self) -> dict[str, Tensor]:
        """The channels that linear layers and convolutions make."""
        return {use.weight: self.channels.made_by(use) for use in self.channels.uses}

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
        cut = cut - self._choice().carriers(cut)
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
        shapes = {name: self.shapes[first] for name, first in tied.items()}
        return Plan(cuts, shapes, added, self._numbers(cut))

    def _numbers(self, cut: set[int]) -> dict[str, dict[str, int]]:
        """The numbers in attributes that become smaller."""
        found: dict[str, dict[str, int]] = {}
        for one in self.channels.numbers:
            if (left := one.left(cut)) < len(one.places):
                found.setdefault(one.module, {})[one.attribute] = left
        for one in self.channels.numbers:
            # An equal number of something else stays: it may be that what the attribute counts.
            if one.left(cut) == len(one.places):
                found.get(one.module, {}).pop(one.attribute, None)
        return {module: numbers for module, numbers in found.items() if numbers}

    def _indices(self, name: str, axis: int, cut: set[int]) -> tuple[int, ...]:
        labels = self.channels.sites[name, axis].tolist()
        return tuple(index for index, root in enumerate(labels) if root in cut)

    def _reasons(self) -> dict[str, list[str]]:
        found = {}
        for name, labels in self.layers.items():
            roots = set(labels.tolist())
            why = self.channels.reasons(labels)
            why += ["it is ignored"] if roots & self.kept else []
            why += dict.fromkeys(self.unsound[root] for root in sorted(roots & self.unsound.keys()))
            if why:
                found[name.removesuffix(".weight")] = why
        return found

    def _write_down(self, cut: set[int], carriers: set[int]) -> None:
        for name, labels in self.layers.items():
            if gone := sum(root in cut for root in labels.tolist()):
                kept = sum(root in carriers for root in labels.tolist())
                words = f", {kept} kept for their constants" if kept else ""
                self.log.change(
                    name.removesuffix(".weight"), f"{gone} of {len(labels)} channels cut{words}"
                )
        for name, why in self._reasons().items():
            self.log.refuse(name, "; ".join(why))
        choice = self._choice()
        self.log.facts.update(
            channels=choice.total,
            cut=choice.gone(cut),
            flops=f"{self.sizes.flops(set())} -> {self.sizes.flops(cut)}",
        )
        if self.goal.gap:
            low, high = self.gammas.gap or (0.0, 0.0)
            self.log.facts["gap"] = f"|γ| from {low:.3g} to {high:.3g}, of all layers"
            if not cut:
                self.log.facts["nothing matched"] = "no channel below the gap can be cut"
        if self.refit is not None:
            return
        threshold = max((choice.importance[root] for root in cut | carriers), default=0.0)
        self.log.facts["threshold"] = threshold
        # Only a channel of γ = 0 is constant: of others, what varies goes too.
        if threshold > FLOOR * max(choice.importance.values()):
            self.log.facts["lost"] = f"what varied in channels of |γ| up to {threshold:.3g}"


def _with_frozen(channels: Channels, model: nn.Module) -> Channels:
    """Include the γ of frozen batch norms that are written as arithmetic, not as an operator."""
    names = [f"{norm.name}.weight" for norm in normalizers(model) if norm.constant]
    found = [name for name in names if (name, 0) in channels.sites]
    return replace(channels, scales=tuple(dict.fromkeys((*channels.scales, *found))))
