"""Forward passes of several batches in lockstep: they wait for each other in front of layers."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from torch import distributed as dist

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, samples_of
from anynorm.surgery.recalibrating.room import Room
from anynorm.surgery.recalibrating.settings import (
    Settings,
    fresh_random_state,
    restore,
    settings,
    with_settings,
)
from anynorm.surgery.streaming_stats import least

__all__ = ["Lockstep", "Tally", "Trip", "outside", "trip", "wait"]

_FAILED, _NOBODY = -1, 2**31 - 1  # beside the places of layers
_END = object()


@dataclass
class Trip:
    """Where a batch is on its way through the model.

    Args:
        start: the number of its first sample among those of all batches.
        samples: how many samples it has; 0 if that is not known.
        met: the layers that it has met, with the number of those before.
    """

    start: int = 0
    samples: int = 0
    met: dict[int, int] = field(default_factory=dict)


@dataclass
class Tally:
    """What a pass took.

    Args:
        forwards: the number of batches.
        samples: the number of their samples.
        rounds: the number of rounds.
        draws: whether the model drew random numbers of torch.
        together: the most batches that waited at a time.
        used: the most bytes that batches needed at a time, while they waited.
    """

    forwards: int = 0
    samples: int = 0
    rounds: int = 0
    draws: bool = False
    together: int = 0
    used: float = 0.0


class _Forward(greenlet):  # type: ignore[misc]
    """The forward pass of one batch, which can be suspended in the middle.

    Its settings are its own: with each switch back, those of the thread outside are in place again.
    """

    def __init__(
        self, run: Callable[[Batch], Any], batch: Batch, trip: Trip, seeds: torch.Generator
    ) -> None:
        super().__init__(self._through)
        self.gr_context = contextvars.copy_context()
        self.place, self.draws, self.outside = _NOBODY, False, Settings()
        self.trip = trip
        self._run, self._batch, self._seeds = run, batch, seeds

    def _through(self) -> None:
        try:
            start = fresh_random_state(self._seeds)
            self._run(self._batch)
            self.draws = not torch.equal(torch.get_rng_state(), start)
        finally:
            restore(self.outside)

    def go_on(self) -> None:
        """Run it until it waits again or ends."""
        self.outside = settings()
        self.switch()

    def end(self) -> None:
        """End it where it waits; its `with` blocks and `finally` clauses run."""
        while not self.dead:
            self.outside = settings()
            self.throw(GreenletExit)


def outside() -> AbstractContextManager[None]:
    """The settings outside of the forward pass that runs, for code that is not part of it."""
    current = getcurrent()
    return with_settings(current.outside) if isinstance(current, _Forward) else nullcontext()


def trip() -> Trip:
    """The trip of the batch that runs; in other threads one that says nothing of its beginning."""
    current = getcurrent()
    return current.trip if isinstance(current, _Forward) else Trip(met={_NOBODY: 0})


def wait(place: int) -> bool:
    """Suspend the forward pass that runs, within `outside`, in front of the layer at `place`.

    Returns False without waiting in another thread, as of `torch.nn.DataParallel`.
    """
    current = getcurrent()
    if not isinstance(current, _Forward) or current.parent is None:
        return False
    current.place = place
    current.parent.switch()
    return True


class Lockstep:
    """Takes batches through a model together, in as few rounds as there is room for.

    In each step all batches that wait at one layer go on; of several layers it is the first one.
    Processes of a group decide together which layer that is, so each of them takes part in the
    collectives of `release`, whether its own batches reach the layer or not.
    """

    def __init__(
        self,
        run: Callable[[Batch], Any],
        release: Callable[[int], None],
        room: Room,
        group: dist.ProcessGroup | None,
        seeds: torch.Generator,
        advance: Callable[[int], None],
    ) -> None:
        self.tally = Tally()
        self._run, self._release, self._room, self._group = run, release, room, group
        self._advance = advance  # called with the number of batches that went on
        self._seeds, self._waiting, self._used, self._told = seeds, list[_Forward](), 0.0, False

    def all_through(self, batches: Iterator[Batch]) -> None:
        """Run all batches; an error of one ends all, on every process."""
        try:
            self._steps(batches)
        except Exception:
            if not self._told:
                with suppress(RuntimeError):
                    least(_FAILED, self._group)
            raise
        finally:
            for forward in self._waiting:
                forward.end()

    def _steps(self, batches: Iterator[Batch]) -> None:
        ahead = next(batches, _END)
        while True:
            if not self._waiting:
                ahead = self._next_round(ahead, batches)
            place = least(min((f.place for f in self._waiting), default=_NOBODY), self._group)
            if place == _NOBODY:
                return
            if place == _FAILED:
                self._told = True
                raise AnynormError("the model failed on another process, whose error says why.")
            self._release(place)
            going = [forward for forward in self._waiting if forward.place == place]
            for forward in going:
                forward.go_on()
            self._keep_waiting()
            self._advance(len(going))

    def _next_round(self, ahead: Batch, batches: Iterator[Batch]) -> Batch:
        """Start as many batches as there is room for; returns the next batch."""
        self.tally.rounds += ahead is not _END
        self._used = 0.0
        while ahead is not _END:
            size = self._room.needed(ahead)
            if self._waiting and self._room.full(self._used + size):
                break
            self._start(ahead, size)
            ahead = next(batches, _END)
        return ahead

    def _start(self, batch: Batch, size: float) -> None:
        tally, on = self.tally, Trip(self.tally.samples, samples_of(batch))
        forward = _Forward(self._run, batch, on, self._seeds)
        tally.forwards, tally.samples = tally.forwards + 1, tally.samples + on.samples
        self._waiting.append(forward)  # so that it is ended if an error follows
        forward.go_on()
        self._keep_waiting()
        if forward in self._waiting:
            self._used += size
            tally.used = max(tally.used, self._used)
            tally.together = max(tally.together, len(self._waiting))

    def _keep_waiting(self) -> None:
        self.tally.draws |= any(forward.draws for forward in self._waiting)
        self._waiting = [forward for forward in self._waiting if not forward.dead]
