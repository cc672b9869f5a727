"""Running statistics computed anew: those of the population that the layers see in eval mode."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, call, each, once
from anynorm.surgery.edit import perform
from anynorm.surgery.given import input_of, mask_of
from anynorm.surgery.model import check_model
from anynorm.surgery.modes import alone, evaluating
from anynorm.surgery.moments import Pooled, averaged, in_group
from anynorm.surgery.names import Layers
from anynorm.surgery.normalizers import Normalizer, named, normalizers
from anynorm.surgery.receipt import Log, Model, Result

__all__ = ["recalibrate", "recompute"]

# Statistics have settled when no mean moved by more σ than this, nor any log σ², or by more than
# the roundings of their type that come together over a hundred layers.
_SETTLED = 1e-8


def recalibrate(
    model: Model,
    batches: Iterable[Batch],
    *,
    passes: int | None = None,
    forward: Forward | None = None,
    layers: Layers | None = None,
    group: dist.ProcessGroup | None = None,
    inplace: bool = False,
) -> Result[Model]:
    """Recompute the running statistics of `model` from `batches`, whatever their sizes.

    Batch norm gets the mean and the unbiased variance of all values that reach it, pooled in
    float64 over batches, positions, calls and, where a process group runs, ranks; values that a
    mask leaves out, which the model passes to the layer, have no part in them.  Everything is in
    eval mode, dropout too, so that a batch of one is as good as any.  The first pass normalizes by
    what was pooled up to each batch; in deep models the inputs of later layers depend on that, so
    further passes follow until the statistics stay: then they are those of one pass over the whole
    data set in one batch, however it is split.  `passes` bounds their number (one pass is the
    usual estimate).  An iterator that can be gone through only once gets a single pass.  Statistics
    other than mean and variance (whitening, L1, ghost, ...) are averaged over the batches, weighted
    by their sizes.

    On batches of another domain this is AdaBN (Li et al. 2016, arXiv:1603.04779).  `forward` says
    how the model is called (see :mod:`anynorm.surgery.batches`); `layers` limits the change to the
    named ones.  Modes, momentum and random state stay.  Raises `AnynormError` if there are no
    batches or statistics come out that are not finite; then nothing has changed.

    >>> x = torch.tensor([[1.0], [2.0], [6.0]])
    >>> result = recalibrate(nn.BatchNorm1d(1), [x[:2], x[2:]])
    >>> result.model.running_mean.item(), result.model.running_var.item()
    (3.0, 7.0)
    """
    check_model("recalibrate", model)
    if passes is not None and passes < 1:
        raise AnynormError(f"passes={passes}; give 1 or more, or None to go on until they stay.")

    def change(target: nn.Module, log: Log) -> nn.Module:
        recompute(target, batches, log, passes=passes, forward=forward, layers=layers, group=group)
        return target

    return perform("recalibrate", model, change, None, inplace=inplace)


def recompute(
    model: nn.Module,
    batches: Iterable[Batch],
    log: Log,
    *,
    passes: int | None = None,
    forward: Forward | None = None,
    layers: Layers | None = None,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Do the work of :func:`recalibrate` on `model` itself."""
    tracking = [norm for norm in normalizers(model) if norm.tracks]
    tracking = named(tracking, layers, "keep running statistics")
    most = 1 if once(batches) else passes or 2 * len(tracking) + 1
    measured: list[_Layer] = []
    number, moved, settled, stay = 0, 0.0, frozenset[int](), not tracking
    while number < most and not stay:
        measured = _one_pass(model, batches, forward, tracking, settled, first=number == 0)
        moves = [layer.write(group) for layer in measured]
        number, moved = number + 1, max(moves)
        stay = moved <= _SETTLED and len(settled) == len(tracking)
        settled = _settled(measured, moves, len(settled))
        if number > 1 and _differ(measured, moves):
            log.facts["note"] = "the batches differ from pass to pass; those of the last count"
            break
    log.facts["passes"] = number
    if number > 1:
        log.facts["last_change"] = moved
    for norm, layer in zip(tracking, measured, strict=True):
        if layer.seen:
            log.change(norm.name, f"statistics of {layer.seen} batches")
        else:
            log.refuse(norm.name, "no batch reached it; its statistics are as they were")


def _differ(measured: list[_Layer], moves: list[float]) -> bool:
    """Whether batches are drawn anew for each pass: nothing else moves what reaches layer one."""
    first = min(range(len(moves)), key=lambda index: measured[index].order)
    return moves[first] > 100 * _SETTLED


def _settled(measured: list[_Layer], moves: list[float], before: int) -> frozenset[int]:
    """The layers, from the first that runs on, that normalize by what is kept in the next pass.

    Once all before it keep their statistics, a layer gets its final ones in one pass: so each pass
    settles one more, and those that did not move are taken for settled until one of them does.
    Those behind normalize by what the pass has pooled so far, since statistics of the last pass do
    not fit what changed layers give them, and in deep models such errors multiply.
    """
    order = sorted(range(len(measured)), key=lambda index: measured[index].order)
    moving = (place for place, index in enumerate(order) if moves[index] > _SETTLED)
    first = next(moving, len(order))
    return frozenset(order[: max(min(before, first) + 1, first)])


def _one_pass(
    model: nn.Module,
    batches: Iterable[Batch],
    forward: Forward | None,
    tracking: list[Normalizer],
    settled: frozenset[int],
    *,
    first: bool,
) -> list[_Layer]:
    order = itertools.count()
    layers: list[_Layer] = [
        _KINDS.get(norm.family, _AveragedLayer)(norm, order, first, index in settled)
        for index, norm in enumerate(tracking)
    ]
    with evaluating(model), alone(layer.layer for layer in layers):
        try:
            for layer in layers:
                layer.begin()
            for batch in each(batches):
                call(model, batch, forward)
        finally:
            for layer in layers:
                layer.end()
    return layers


class _Layer:
    """The new statistics of one layer, in the making during one pass."""

    def __init__(self, norm: Normalizer, order: Iterator[int], first: bool, settled: bool) -> None:
        self.norm, self.layer, self.first, self.settled = norm, norm.module, first, settled
        self.seen, self.order, self._orders = 0, sys.maxsize, order
        self._hook: Any = None

    def begin(self) -> None:
        self._before = [b.clone() for b in self.layer.buffers()]
        self._hook = self.layer.register_forward_pre_hook(self._see, with_kwargs=True)

    def end(self) -> None:
        self._hook.remove()

    def write(self, group: dist.ProcessGroup | None) -> float:
        """Write the statistics; returns how far they moved, in units of σ and log σ²."""
        raise NotImplementedError

    def _see(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.order = min(self.order, next(self._orders))
        self.seen += 1
        self._take(input_of(args, kwargs), mask_of(layer, args, kwargs))

    def _take(self, x: Tensor, mask: Tensor | None) -> None:
        raise NotImplementedError


class _PooledLayer(_Layer):
    """Batch norm: the exact moments of all values that count."""

    def __init__(self, norm: Normalizer, order: Iterator[int], first: bool, settled: bool) -> None:
        super().__init__(norm, order, first, settled)
        self._pooled = Pooled()

    def _take(self, x: Tensor, mask: Tensor | None) -> None:
        batched = x if x.dim() > 1 else x[None]
        self._pooled.merge(batched, mask)
        if not self.settled:
            self._store(self._pooled)

    def write(self, group: dist.ProcessGroup | None) -> float:
        pooled = self._pooled
        if in_group():
            pooled = pooled.over_ranks(group, len(self.layer.running_mean))
        if not pooled.count:
            return 0.0
        self._check(pooled)
        self._store(pooled)
        self.layer.num_batches_tracked.fill_(max(self.seen, 1))
        if self.first:
            return torch.inf
        mean, var = (b.to(torch.float64) for b in self._before[:2])
        moved = _moved(mean, var, pooled, self.layer.eps)
        return 0.0 if moved <= 64 * torch.finfo(self.layer.running_var.dtype).eps else moved

    def _store(self, pooled: Pooled) -> None:
        running = self.layer.running_mean, self.layer.running_var
        for statistic, new in zip(running, pooled.beside(*running), strict=True):
            statistic.copy_(new)

    def _check(self, pooled: Pooled) -> None:
        if not bool(pooled.mean.isfinite().all()):
            raise AnynormError(
                f"what reaches {self.norm.name!r} is not finite, so it has no statistics. Look for "
                "NaN or infinite values in the batches and in the weights before it."
            )


def _moved(mean: Tensor, var: Tensor, pooled: Pooled, eps: float) -> float:
    """How far statistics moved, in units of σ and of log σ²."""
    new_mean, new_var = pooled.beside(mean, var)
    by_mean = (new_mean - mean).abs() / (new_var + eps).sqrt()
    by_var = ((new_var + eps) / (var + eps)).log().abs()
    return float(torch.maximum(by_mean, by_var).max().nan_to_num(nan=torch.inf))


class _AveragedLayer(_Layer):
    """Any other statistic: the average of the batches', weighted by what counts in them."""

    def __init__(self, norm: Normalizer, order: Iterator[int], first: bool, settled: bool) -> None:
        super().__init__(norm, order, first, settled)
        self._momentum, self._samples = self.layer.momentum, 0.0

    def begin(self) -> None:
        super().begin()
        self.layer.training = True

    def end(self) -> None:
        super().end()
        self.layer.momentum = self._momentum

    def _take(self, x: Tensor, mask: Tensor | None) -> None:
        if not self._samples:
            self.layer.reset_running_stats()
        size = float(len(x))
        if mask is not None and len(x):
            size *= mask.double().mean().item()
        self._samples += size
        # The running average with this momentum is the average weighted by the batches' sizes.
        self.layer.momentum = size / self._samples if size else 0.0

    def write(self, group: dist.ProcessGroup | None) -> float:
        if in_group():
            for buffer in self.layer.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(averaged(buffer, self._samples, group))
        if self.first or not self.seen:
            return torch.inf if self.seen else 0.0
        pairs = zip(self._before, self.layer.buffers(), strict=True)
        return max(_relative(old.double(), new.double()) for old, new in pairs)


def _relative(old: Tensor, new: Tensor) -> float:
    return float((new - old).abs().max() / new.abs().max().clamp_min(1e-30))


_KINDS: dict[str, type[_Layer]] = {"batch": _PooledLayer}
