"""One pass over the batches, which gives each layer the statistics of what reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from anynorm.ops.merge import merge
from anynorm.surgery.batches import Batch, Forward, call, need_some
from anynorm.surgery.call_args import input_of
from anynorm.surgery.modes import alone, evaluating, uncompiled
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.recalibrating.changes import moved
from anynorm.surgery.recalibrating.layers import layer_of
from anynorm.surgery.recalibrating.lockstep import Lockstep, Tally, outside, trip, wait
from anynorm.surgery.recalibrating.noise import Part
from anynorm.surgery.recalibrating.room import Room
from anynorm.surgery.streaming_stats import Pooled, anyone, in_group, least, of_samples

__all__ = ["Pass"]


class Pass:
    """One pass: the new statistics of the layers, and a check whether the batches are the same.

    Layers that are not `settled` hold all batches until their statistics are known.
    """

    def __init__(
        self,
        tracking: Sequence[Normalizer],
        settled: frozenset[int],
        group: dist.ProcessGroup | None,
    ) -> None:
        self.layers = [layer_of(norm, settled=i in settled) for i, norm in enumerate(tracking)]
        self.tally, self._group = Tally(), group
        self._first, self._eps = Pooled(), 0.0

    def run(
        self,
        model: nn.Module,
        batches: Iterator[Batch],
        forward: Forward | None,
        room: Room,
        seeds: torch.Generator,
        advance: Callable[[int], None],
    ) -> None:
        """Take all batches through the model, and write the statistics."""
        run = partial(call, model, forward=forward)
        steps = Lockstep(run, self._release, room, self._group, seeds, advance)
        with evaluating(model), uncompiled(), alone(layer.layer for layer in self.layers):
            hooks = [
                layer.layer.register_forward_pre_hook(self._hook(place), with_kwargs=True)
                for place, layer in enumerate(self.layers)
            ]
            try:
                steps.all_through(batches)
            finally:
                for hook in hooks:
                    hook.remove()
            self.tally = steps.tally
            need_some(anyone(self.tally.forwards > 0, self._group))
            for layer in self.layers:
                if not layer.certain:  # one that held all batches has been written
                    layer.write(self._group)
                layer.end()
        self._agree()

    def _hook(self, place: int) -> Callable[..., None]:
        layer = self.layers[place]

        def arrive(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            with outside():
                on = trip()
                first, before = not on.met, on.met.setdefault(place, len(on.met))
                part = layer.take(args, kwargs, on, before)
                if first:
                    self._note_first(input_of(args, kwargs), part)
                if not (layer.settled or wait(place) or in_group()):
                    self._release(place)

        return arrive

    def _release(self, place: int) -> None:
        self.layers[place].release(self._group)

    def _note_first(self, x: Tensor, part: Part | None) -> None:
        """Note what reaches the first layer in a forward pass, which depends on no statistics."""
        if x.is_floating_point():
            self._eps = torch.finfo(x.dtype).eps
            counts, means, squares = part or of_samples(x.reshape(1, -1, 1), None)
            flat = [t.reshape(-1, 1) for t in (counts.expand_as(means), means, squares)]
            self._first.add(*merge(*flat))

    def _agree(self) -> None:
        """Let all processes know the same of the pass, so that they take the same decisions."""
        self.tally.draws = anyone(self.tally.draws, self._group)
        orders = least([-layer.order for layer in self.layers], self._group)
        for layer, order in zip(self.layers, orders, strict=True):
            layer.order = -order
        if in_group():
            self._first = self._first.over_ranks(self._group, 1)

    def differs(self, other: Pass) -> bool:
        """Whether the batches are not those of another pass, as far as this process has any."""
        if not self._eps:
            return False
        before, now = ((one._first.mean, one._first.variance) for one in (other, self))
        return bool(moved(before, now, 0.0, self._eps, 1.0).any())

    def order(self) -> list[int]:
        """The layers' indices in the order in which they run."""
        return sorted(range(len(self.layers)), key=lambda index: self.layers[index].order)

    def moves(self, *, first: bool) -> list[float]:
        """By how much each layer's statistics changed.

        Those of a layer that held all batches are exact for what reached it, so they count as 0.
        Otherwise the change is infinite in the `first` pass.
        """
        found, magnitude = [0.0] * len(self.layers), 1.0
        for index in self.order():
            layer = self.layers[index]
            if layer.reached:
                if not layer.certain:
                    found[index] = torch.inf if first else layer.moved(magnitude)
                magnitude = max(magnitude, layer.magnitude)
        return found

    def uncertain(self) -> list[int]:
        """The layers that did not hold all batches, in the order in which they run."""
        return [i for i in self.order() if self.layers[i].reached and not self.layers[i].certain]
