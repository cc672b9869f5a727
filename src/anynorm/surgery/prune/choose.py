"""Choose the channels to cut: those that matter least, by a ratio, a budget or a natural gap."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anynorm.errors import AnynormError
from anynorm.surgery.channels import Channels
from anynorm.surgery.prune.carriers import Strength

__all__ = ["Choice", "Goal", "Ranking", "Sizes"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Goal:
    """How much to cut, by one of four measures, and what every layer keeps.

    `ratio` is the share of all prunable channels; `parameters` and `flops` are the most that
    remain, as a share or, above 1, as a number; `gap` cuts all channels below the natural gap of
    |γ| in `Gammas.of(model)`. Every layer keeps at least `least` channels, and a multiple of
    `multiple`.
    """

    ratio: float | None = None
    parameters: float | None = None
    flops: float | None = None
    gap: bool = False
    least: int = 1
    multiple: int = 1

    def check(self) -> None:
        """Raise `AnynormError` unless exactly one measure is given, within its range."""
        given = [self.ratio, self.parameters, self.flops, self.gap or None]
        if sum(value is not None for value in given) != 1:
            raise AnynormError(
                "say how much to cut, by exactly one of ratio=, parameters=, flops= and gap=True."
            )
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise AnynormError(f"ratio={self.ratio}: give a share of channels, 0 <= ratio < 1.")
        for name in ("parameters", "flops"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise AnynormError(f"{name}={value} is the most that may remain; give more than 0.")
        if self.least < 1 or self.multiple < 1:
            raise AnynormError("least and multiple count channels; give 1 or more.")


class Sizes:
    """The size of a model without cut channels: parameters and FLOPs (two per multiply-add)."""

    def __init__(
        self, channels: Channels, shapes: Mapping[str, tuple[int, ...]], parameters: Sequence[str]
    ) -> None:
        self._channels, self._shapes, self._parameters = channels, shapes, parameters

    def parameters(self, cut: set[int]) -> int:
        """The number of parameters without the channels `cut`."""
        return sum(self._left(name, cut) for name in self._parameters)

    def flops(self, cut: set[int]) -> int:
        """The FLOPs of linear layers and convolutions without the channels `cut`."""
        uses = self._channels.uses
        return sum(2 * use.positions * self._left(use.weight, cut) for use in uses)

    def _left(self, name: str, cut: set[int]) -> int:
        shape = list(self._shapes[name])
        for axis in range(len(shape)):
            if (name, axis) in self._channels.sites:
                gone = sum(root in cut for root in self._channels.sites[name, axis].tolist())
                shape[axis] -= gone
        return math.prod(shape)


@dataclass(frozen=True)
class Ranking:
    """The prunable channels, by how much each matters.

    Those that are `needed` count in the order and are kept: no channel that matters more is cut in
    their place.
    """

    importance: Mapping[int, float]
    needed: frozenset[int] = frozenset()

    @classmethod
    def by_gamma(cls, channels: Channels, state: State) -> Ranking:
        """Channels matter by their |γ|; one that a layer also reads without a γ is needed."""
        scales = _scales(channels, state)
        return cls({root: scales[root] for root in channels.prunable}, frozenset(channels.needed))

    @classmethod
    def by_cost(cls, channels: Channels, costs: Mapping[int, float], cut: set[int]) -> Ranking:
        """Channels matter by what each of their places costs; those that are `cut` come first."""
        wide = channels.places
        known = {root: costs.get(root, 0.0) / wide[root] for root in channels.read}
        return cls({root: -1.0 if root in cut else cost for root, cost in known.items()})


class Choice:
    """The prunable channels in the order in which they matter, and how many are cut.

    `gap` has the values on both sides of the natural gap of the model's |γ|.  Of the cut channels
    of a layer, the one of the largest strength in `carriers` stays, to stand for the constants of
    all; where no channel has one, all go.
    """

    def __init__(
        self,
        channels: Channels,
        ranking: Ranking,
        kept: set[int],
        gap: tuple[float, float] | None = None,
        carriers: Mapping[int, Strength] | None = None,
    ) -> None:
        self._strengths = carriers or {}
        self.gap, self.needed, self.importance = gap, ranking.needed, ranking.importance
        free = [root for root in self.importance if root not in kept]
        self.order = sorted(free, key=lambda root: (self.importance[root], root))
        scales = [channels.sites[name, 0] for name in channels.scales]
        self.width = channels.places | _counts(scales)
        # Several norms may scale the same channel; what holds for a layer must hold for each.
        self._step: dict[int, int] = {}
        for labels in scales:
            for root, count in _counts([labels]).items():
                self._step[root] = math.gcd(self._step.get(root, 0), count)
        self.spaces = _spaces(channels, self.order)

    @property
    def total(self) -> int:
        """The number of prunable channels; one counts as often as it has a γ."""
        return sum(self.width[root] for root in self.order)

    def cut(self, goal: Goal, sizes: Sizes) -> set[int]:
        """The channels to cut to reach the goal, with the `carriers` among them."""
        if goal.ratio is not None:
            most = math.floor(goal.ratio * self.total + 1e-9)

            def fits(count: int) -> bool:
                ahead = self.needed & set(self.order[:count])
                return self.gone(self._removed(count, goal) | ahead) <= most

            return self._first(self._largest(fits), goal)
        if goal.gap:
            threshold = _threshold(self.gap)
            return self._first(sum(self.importance[root] < threshold for root in self.order), goal)
        measure = sizes.flops if goal.parameters is None else sizes.parameters
        budget = goal.flops if goal.parameters is None else goal.parameters
        assert budget is not None
        return self._by_budget(measure, budget, goal)

    def gone(self, cut: set[int]) -> int:
        """The number of channels that are `cut`, counted as in `total`."""
        return sum(self.width[root] for root in cut)

    def carriers(self, cut: set[int]) -> set[int]:
        """The channels that stay, with γ = 0, for the constants of those that are `cut`."""
        found = (self._carrier([root for root in space if root in cut]) for space in self.spaces)
        return {root for root in found if root is not None}

    def _carrier(self, gone: Sequence[int]) -> int | None:
        able = [root for root in gone if root in self._strengths]
        return max(able, key=lambda root: (self._strengths[root], root), default=None)

    def _by_budget(self, measure: Callable[[set[int]], int], budget: float, goal: Goal) -> set[int]:
        most = budget * measure(set()) if budget <= 1 else budget
        smallest = measure(self._removed(len(self.order), goal))
        if smallest > most:
            raise AnynormError(
                f"at most {most:.0f} cannot be reached: {smallest} remain when all prunable "
                "channels are cut. Give a larger number, or a smaller least=."
            )
        if measure(set()) <= most:
            return set()
        count = 1 + self._bound(goal, lambda cut: measure(cut) > most)
        return self._first(count, goal)

    def _bound(self, goal: Goal, holds: Callable[[set[int]], bool]) -> int:
        """The largest number of channels, in order, for which the condition still holds."""
        return self._largest(lambda count: holds(self._removed(count, goal)))

    def _largest(self, holds: Callable[[int], bool]) -> int:
        counts = range(1, len(self.order) + 1)
        return bisect_left(counts, True, key=lambda count: not holds(count))

    def _first(self, count: int, goal: Goal) -> set[int]:
        """The first `count` channels in order, without those that every layer keeps."""
        cut = set(self.order[:count]) - self.needed
        for space in self.spaces:
            cut -= self._spared(space, cut, goal)
        return cut

    def _removed(self, count: int, goal: Goal) -> set[int]:
        """Those of the first `count` channels that go, without the carriers."""
        cut = self._first(count, goal)
        return cut - self.carriers(cut)

    def _spared(self, space: Sequence[int], cut: set[int], goal: Goal) -> set[int]:
        """The largest channels to be cut that a layer keeps for its least number and multiple."""
        width = self._step.get(space[0], 1)
        step = goal.multiple // math.gcd(goal.multiple, width)
        gone = [root for root in reversed(space) if root in cut]
        carrier = self._carrier(gone)
        stay = [root for root in gone if root != carrier]
        constant = len(gone) - len(stay)  # 1 if there is a carrier
        kept = len(space) - len(gone)
        # A carrier counts, but a layer needs a channel that varies as well.
        wanted = max(max(kept, 1) + constant, math.ceil(goal.least / width))
        wanted = min(math.ceil(wanted / step) * step, len(space))
        more = wanted - kept - constant
        # A carrier for itself alone is of no use.
        return set(gone if more >= len(stay) else stay[:more])


def _scales(channels: Channels, state: State) -> dict[int, float]:
    """The largest |γ| of each channel: it is only cut if it is small in every normalizer."""
    found: dict[int, float] = {}
    for name in channels.scales:
        values = state[name].detach().abs().tolist()
        for root, value in zip(channels.sites[name, 0].tolist(), values, strict=True):
            found[root] = max(found.get(root, 0.0), value)
    return found


def _counts(labels: Sequence[Tensor]) -> dict[int, int]:
    """How often each channel is among the labels."""
    every = torch.cat([*labels, torch.zeros(0, dtype=torch.int64)])
    values, counts = every.unique(return_counts=True)
    return dict(zip(map(int, values.tolist()), counts.tolist(), strict=True))


def _spaces(channels: Channels, order: Sequence[int]) -> list[list[int]]:
    """Groups of channels on the same axes, such as those of one layer, each in `order`."""
    at: dict[int, list[tuple[str, int]]] = {root: [] for root in order}
    for site, labels in channels.sites.items():
        for root in labels.unique().tolist():
            if root in at:
                at[root].append(site)
    found: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for root in order:
        found.setdefault(tuple(at[root]), []).append(root)
    return list(found.values())


def _threshold(gap: tuple[float, float] | None) -> float:
    """The |γ| above the natural gap; raises `AnynormError` if there is no gap."""
    if gap is None:
        raise AnynormError(
            "|γ| has no gap: no value is twice the one below it. Train with anynorm.slim first, or "
            "give ratio=, parameters= or flops=."
        )
    return gap[1]
