"""Passes over the batches until no statistic changes: one, where all batches can wait together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice

import torch
from torch import distributed as dist
from torch import nn

from anynorm.report.progress import harmless, say, steps
from anynorm.surgery.batches import Batch, Forward, device_of, each, length_of, once
from anynorm.surgery.names import Layers
from anynorm.surgery.normalizers import Normalizer, named, normalizers
from anynorm.surgery.recalibrating.footprint import Footprint, footprint
from anynorm.surgery.recalibrating.noise import Noise, noise_of, verdict
from anynorm.surgery.recalibrating.one_pass import Pass
from anynorm.surgery.recalibrating.room import Room, allowed, shown
from anynorm.surgery.receipt import Log
from anynorm.surgery.streaming_stats import anyone, in_group

__all__ = ["recompute"]

# Additional passes where the inputs of a layer may depend on its own statistics, so that a fixed
# point is sought.
_FIXED_POINT = 100
_PATIENCE = 20  # passes without progress towards a fixed point


def recompute(
    model: nn.Module,
    batches: Iterable[Batch],
    log: Log,
    *,
    passes: int | None = None,
    forward: Forward | None = None,
    layers: Layers | None = None,
    group: dist.ProcessGroup | None = None,
    memory: float | None = None,
    progress: bool = False,
) -> None:
    """Do the work of :func:`anynorm.recalibrate` on `model` itself."""
    tracking = [norm for norm in normalizers(model) if norm.tracks]
    tracking = named(tracking, layers, "keep running statistics")
    single = anyone(once(batches), group)
    run = _Passes(model, batches, forward, tracking, group, memory, shown=progress)
    run.until_settled(1 if single else passes)
    log.facts["passes"] = run.number
    if run.number > 1 or run.settled:
        log.facts["last_change"] = run.moved
    log.facts |= {"memory": run.memory()} if run.memory() else {}
    told = zip(("samples", "warning"), verdict(run.noises()), strict=True)
    log.facts |= {name: text for name, text in told if text}
    if note := run.note(most=passes, single=single):
        log.facts["note"] = note
    for norm, layer in zip(tracking, [] if run.last is None else run.last.layers, strict=True):
        if layer.seen:
            log.change(norm.name, f"statistics of {layer.seen} batches")
        else:
            log.refuse(norm.name, "no batch reached it; its statistics did not change")


class _Passes:
    """The passes so far, and which layers use their stored statistics in the next one."""

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        forward: Forward | None,
        tracking: Sequence[Normalizer],
        group: dist.ProcessGroup | None,
        memory: float | None,
        *,
        shown: bool,
    ) -> None:
        self._model, self._given, self._forward = model, batches, forward
        self._tracking, self._group, self._memory, self._shown = tracking, group, memory, shown
        self._seeds = torch.Generator()
        self._seeds.set_state(torch.get_rng_state())
        self.number, self.moved, self.settled, self.differ = 0, 0.0, not tracking, False
        self._nearest, self._at = torch.inf, 0  # the smallest change, and its pass
        self._stored: list[int] = []
        self._footprint: Footprint | None = None  # None if there is a single batch
        self._bound, self._example = 0.0, None
        self.first: Pass | None = None
        self.last: Pass | None = None

    def until_settled(self, most: int | None) -> None:
        """Repeat until nothing changes, but not more often than `most`."""
        while not (self.settled or self.differ) and self.number < (most or self._most()):
            self._another()

    def _another(self) -> None:
        found = Pass(self._tracking, frozenset(self._stored), self._group)
        batches = self._batches()
        with self._progress() as advance:
            found.run(self._model, batches, self._forward, self._room(), self._seeds, advance)
        moves = found.moves(first=self.last is None)
        self.number, self.moved = self.number + 1, max(moves)
        if self.moved < self._nearest:
            self._nearest, self._at = self.moved, self.number
        uncertain = found.uncertain()
        self.settled = self.moved == 0 and set(uncertain) <= set(self._stored)
        self._stored = _first_ones(uncertain, moves, len(self._stored))
        differ = self.last is not None and found.differs(self.last)
        self.differ = anyone(differ, self._group)
        self.first, self.last = self.first or found, found

    def _batches(self) -> Iterator[Batch]:
        """The batches; at the beginning the first one shows what is kept while it waits."""
        batches = each(self._given, some=not in_group())
        if self.last is not None:
            return batches
        try:
            ahead = list(islice(batches, 2))
        except Exception as error:  # to be raised where other processes learn of it
            return _raising(error)
        if len(ahead) > 1:
            self._example = ahead[0]
            layers = [norm.layer for norm in self._tracking]
            self._footprint = footprint(self._model, ahead[0], self._forward, layers)
        free = allowed(device_of(self._model), self._group)
        self._bound = free if self._memory is None else self._memory
        return chain(ahead, batches)

    def _room(self) -> Room:
        if self._footprint is None:
            return Room(self._bound)
        return self._footprint.room(self._bound, self._stored)

    def _progress(self) -> AbstractContextManager[Callable[[int], None]]:
        """Before the first pass, say what waiting batches will keep; then show the steps."""
        if not self._shown:
            return nullcontext(lambda _: None)
        number = length_of(self._given)
        kept = self._footprint
        if self.last is None and kept is not None:
            harmless(say, self._plan(kept, number))
        known = None if number is None or kept is None else kept.stops(self._stored) * number
        return steps(f"recalibrate, pass {self.number + 1}", known)

    def _plan(self, footprint: Footprint, number: int | None) -> str:
        """What waiting batches will keep."""
        if footprint.why:
            return f"one batch at a time, since {footprint.why}."
        each = self._room().needed(self._example)
        text = f"each batch that waits keeps up to {shown(each)}, of {shown(self._bound)} for all"
        if number is None:
            return f"{text}."
        if number * each <= self._bound:
            return f"{text}; all {number} wait together, with up to {shown(number * each)}."
        return f"{text}; {number} need {shown(number * each)}, so further passes follow."

    def _most(self) -> int:
        """The most passes: enough to settle layers one by one, or to find a fixed point."""
        one_by_one = 2 * len(self._tracking) + 1
        return max(one_by_one, min(self._at + _PATIENCE, one_by_one + _FIXED_POINT))

    def memory(self) -> str:
        """How many batches waited together, and what they kept; "" for a single batch."""
        if self._footprint is None or self.first is None:
            return ""
        if self._footprint.why:
            return f"one batch at a time, since {self._footprint.why}"
        tally = self.first.tally
        text = f"{tally.together} batches wait together and keep up to {shown(tally.used)}, of "
        text += f"{shown(self._bound)} that they may use"
        if tally.rounds == 1:
            return text
        if self._footprint.cached:
            text += f"; those of other shapes do not wait, since {self._footprint.cached}"
        return f"{text}; not all {tally.forwards} do, so the first layers took a pass each"

    def noises(self) -> list[Noise]:
        """The noise of the layers' statistics; none for ranks, which have parts of the samples."""
        if self.first is None or self.last is None or in_group():
            return []
        return [
            noise_of(layer.norm.name, units, before.before, layer.moments, layer.layer.eps)
            for layer, before in zip(self.last.layers, self.first.layers, strict=True)
            if (units := layer.units) is not None
        ]

    def note(self, most: int | None, *, single: bool) -> str:
        """What the statistics are not, in words; "" if they are exact, or the passes were given."""
        if self.differ:
            return "the batches differ from pass to pass; the last pass counts"
        if self.settled:
            return _DRAWN if self.last is not None and self.last.tally.draws else ""
        if single:
            return _ESTIMATES
        return "" if most is not None else _unsettled(self.number, self.moved)


def _raising(error: Exception) -> Iterator[Batch]:
    raise error
    yield


def _first_ones(uncertain: list[int], moves: list[float], before: int) -> list[int]:
    """The layers that use their stored statistics in the next pass.

    These are the first of those that did not hold all batches. If the statistics of all earlier
    layers are final, a layer gets its final ones in one pass. So each pass settles one more layer,
    and layers that did not change count as settled until one of them changes. Later layers use the
    statistics pooled so far in the pass: statistics of the last pass do not fit the changed inputs,
    and in deep models such errors multiply.
    """
    moving = (place for place, index in enumerate(uncertain) if moves[index])
    first = next(moving, len(uncertain))
    return uncertain[: max(min(before, first) + 1, first)]


_DRAWN = "the model draws random numbers in eval mode; the statistics are those of one draw"
_ESTIMATES = (
    "the statistics are estimates: exact ones need further passes, and the batches can be used "
    "only once. Give a list or a loader, or more memory if batches did not wait together"
)


def _unsettled(passes: int, moved: float) -> str:
    return (
        f"the statistics did not converge: the last of {passes} passes over the same batches "
        f"changed them by {moved:.2g} σ. This happens if the inputs of a layer depend on its own "
        "statistics, as in recurrent models, or are random in eval mode. passes= sets the number"
    )
