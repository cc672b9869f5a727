"""Recompute running statistics: those of all inputs that the layers get in eval mode."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, call, each, once
from anynorm.surgery.call_args import input_of, mask_of
from anynorm.surgery.model import check_model
from anynorm.surgery.modes import alone, evaluating
from anynorm.surgery.names import Layers
from anynorm.surgery.normalizers import Normalizer, named, normalizers
from anynorm.surgery.receipt import Log, Model, Result
from anynorm.surgery.streaming_stats import Pooled, anyone, averaged, double, in_group
from anynorm.surgery.transaction import perform
from anynorm.surgery.unmatched import Search, may_keep

__all__ = ["recalibrate", "recompute", "start_anew"]

# Two passes that see the same values may still differ by roundings.  Say ρ is the root mean square
# of a channel over its σ (large where the mean is many σ), and e the machine epsilon of the type
# that keeps the statistics.  Values near ρσ have errors of up to e/2 · ρσ.  These move the mean by
# that, and σ² by up to 2σ · e/2 · ρσ.  Then each of the two results is rounded, which moves the
# mean by up to e · ρσ and σ² by e.  So the mean may move by 3/2 · eρ σ, and log σ² by 2 eρ.  An
# error of eρ σ in front of a normalizer is one of eρ behind it, where values are about 1: so
# layers behind count with the largest ρ before them.  Twice that is for the arithmetic of the
# layers.
_ROUNDINGS = 4
# Additional passes for models that call a layer several times: its inputs may depend on its own
# statistics, so a fixed point is sought.
_FIXED_POINT = 100
_PATIENCE = 20  # passes without progress towards a fixed point


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
    """Recompute the running statistics of a model from batches, whatever their sizes.

    Batch norm gets the mean and the unbiased variance of all values that reach it, pooled in
    float64 over batches, positions, calls and, if a process group runs, ranks.  If the model passes
    a mask to the layer, masked values do not count.  The model is in eval mode, dropout too, so
    batches may have any size, even one.  The first pass normalizes by the statistics pooled so far.
    The inputs of later layers depend on these, so passes are repeated until the statistics do not
    change.  The result is then the same as for the whole data set in one batch, however it is
    split.  Statistics other than mean and variance (whitening, L1, ghost, ...) are averaged over
    the batches, weighted by their sizes.

    On batches of another domain this is AdaBN.  Modes, momentum and random state do not change.

    Args:
        model: the model, in any mode.
        batches: inputs, as a loader gives them.  For an iterator that can be used only once there
            is a single pass.
        passes: the largest number of passes; None to continue until the statistics do not change.
            One pass is the usual estimate.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).
        layers: the layers to recalibrate: names, modules that contain them, or patterns (see
            :mod:`anynorm.surgery.names`); None for all.
        group: the process group whose ranks are pooled; None for the default group.
        inplace: whether to change the model itself instead of a copy.

    Returns:
        The model and the receipt.

    Raises:
        AnynormError: There are no batches, the model cannot be called on them, new statistics are
            not finite, or an entry of `layers` names no layer with statistics.  The model is then
            not changed.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [6.0]])
        >>> result = recalibrate(nn.BatchNorm1d(1), [x[:2], x[2:]])
        >>> result.model.running_mean.item(), result.model.running_var.item()
        (3.0, 7.0)

    Reference:
        Li et al. 2016, arXiv:1603.04779 (AdaBN).
    """
    check_model("recalibrate", model)
    if passes is not None and passes < 1:
        raise AnynormError(
            f"passes={passes}; give 1 or more, or None to continue until nothing changes."
        )

    def change(target: nn.Module, log: Log) -> nn.Module:
        log.search = Search("layers with running statistics", _why_not, may_keep(layers))
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
    bound = 1 if once(batches) else passes
    number, moved, settled, stay = 0, 0.0, frozenset[int](), not tracking
    nearest, at = torch.inf, 0
    last: _Pass | None = None
    while not stay and number < (bound or _most(last, len(tracking), at)):
        found = _one_pass(model, batches, forward, tracking, settled, group)
        moves = _written(found.layers, group, first=last is None)
        number, moved = number + 1, max(moves)
        if moved < nearest:
            nearest, at = moved, number
        stay = moved == 0 and len(settled) == len(tracking)
        settled = _settled(found.layers, moves, len(settled))
        differs, last = last is not None and found.differs(last), found
        if differs:
            log.facts["note"] = "the batches differ from pass to pass; the last pass counts"
            break
    else:
        if not stay and bound is None:
            log.facts["note"] = _unsettled(number, moved)
    log.facts["passes"] = number
    if number > 1:
        log.facts["last_change"] = moved
    for norm, layer in zip(tracking, [] if last is None else last.layers, strict=True):
        if layer.seen:
            log.change(norm.name, f"statistics of {layer.seen} batches")
        else:
            log.refuse(norm.name, "no batch reached it; its statistics did not change")


def _why_not(norm: Normalizer) -> str:
    """Why a layer has no statistics to recompute; "" if it has."""
    if norm.constant:
        return "its statistics are frozen: recalibrate before freezing"
    return "" if norm.keeps else "it has no running statistics"


def _most(last: _Pass | None, layers: int, nearest: int) -> int:
    """The largest number of passes: enough to settle all layers one by one, or for a fixed point.

    `nearest` is the pass with the smallest change of the statistics.
    """
    one_by_one = 2 * layers + 1
    if last is None or not last.repeats:
        return one_by_one
    return max(one_by_one, min(nearest + _PATIENCE, one_by_one + _FIXED_POINT))


def _unsettled(passes: int, moved: float) -> str:
    return (
        f"the statistics did not converge: the last of {passes} passes over the same batches "
        f"changed them by {moved:.2g} σ. This happens if the inputs of a layer depend on its own "
        "statistics, as in recurrent models, or are random in eval mode. passes= sets the number"
    )


def _written(layers: list[_Layer], group: dist.ProcessGroup | None, *, first: bool) -> list[float]:
    """Write the new statistics; return each layer's change, which is infinite in the `first`."""
    moves, magnitude = [0.0] * len(layers), 1.0
    for layer in layers:
        layer.write(group)
    for index in _in_order(layers):
        layer = layers[index]
        if layer.reached:
            moves[index] = torch.inf if first else layer.moved(magnitude)
            magnitude = max(magnitude, layer.magnitude)
    return moves


def _in_order(layers: list[_Layer]) -> list[int]:
    """The layers' indices in the order in which they run."""
    return sorted(range(len(layers)), key=lambda index: layers[index].order)


def _settled(measured: list[_Layer], moves: list[float], before: int) -> frozenset[int]:
    """The first layers in order of execution, which use their stored statistics in the next pass.

    If the statistics of all earlier layers are final, a layer gets its final ones in one pass. So
    each pass settles one more layer, and layers that did not change count as settled until one of
    them changes. Later layers use the statistics pooled so far in the pass: statistics of the last
    pass do not fit the changed inputs, and in deep models such errors multiply.
    """
    order = _in_order(measured)
    moving = (place for place, index in enumerate(order) if moves[index])
    first = next(moving, len(order))
    return frozenset(order[: max(min(before, first) + 1, first)])


class _Pass:
    """One pass over the batches: the statistics of its layers, and a check of the first input."""

    def __init__(self) -> None:
        self.layers: list[_Layer] = []
        self.forwards = self.calls = 0
        self.repeats = False  # whether a layer was called several times in a forward pass
        self._first, self._eps, self._arrived = Pooled(), 0.0, False

    def start(self) -> None:
        """Begin another forward pass."""
        self.forwards, self._arrived = self.forwards + 1, False

    def arrive(self, x: Tensor) -> int:
        """Take the input of a layer; returns its number among all calls."""
        if not self._arrived and x.is_floating_point():
            self._arrived, self._eps = True, torch.finfo(x.dtype).eps
            self._first.merge(x.reshape(-1, 1))
        self.calls += 1
        return self.calls - 1

    def end(self, group: dist.ProcessGroup | None) -> None:
        """Let all processes know the same of the pass, so that they take the same decisions."""
        again = any(layer.seen > self.forwards for layer in self.layers)
        self.repeats = anyone(again, group)
        if in_group():
            self._first = self._first.over_ranks(group, 1)

    def differs(self, other: _Pass) -> bool:
        """Whether the batches are not those of another pass.

        What reaches the first layer that runs, when it runs first, depends on no statistics.
        """
        before, now = ((one._first.mean, one._first.variance) for one in (other, self))
        return bool(_moved(before, now, 0.0, self._eps, 1.0).any())


def _one_pass(
    model: nn.Module,
    batches: Iterable[Batch],
    forward: Forward | None,
    tracking: list[Normalizer],
    settled: frozenset[int],
    group: dist.ProcessGroup | None,
) -> _Pass:
    found = _Pass()
    found.layers = [
        (_PooledLayer if norm.spec.pools_batch else _AveragedLayer)(norm, found, index in settled)
        for index, norm in enumerate(tracking)
    ]
    with evaluating(model), alone(layer.layer for layer in found.layers):
        try:
            for layer in found.layers:
                layer.begin()
            for batch in each(batches):
                found.start()
                call(model, batch, forward)
        finally:
            for layer in found.layers:
                layer.end()
    found.end(group)
    return found


class _Layer:
    """The new statistics of one layer, in the making during one pass."""

    def __init__(self, norm: Normalizer, within: _Pass, settled: bool) -> None:
        self.norm, self.layer, self.settled = norm, norm.layer, settled
        self.seen, self.order, self._pass = 0, sys.maxsize, within
        self.reached = False  # by a batch of any process
        self._hook: Any = None

    def begin(self) -> None:
        self._before = self._kept()
        self._hook = self.layer.register_forward_pre_hook(self._see, with_kwargs=True)

    def end(self) -> None:
        self._hook.remove()

    def write(self, group: dist.ProcessGroup | None) -> None:
        """Write the statistics."""
        raise NotImplementedError

    def moved(self, magnitude: float) -> float:
        """How far the statistics moved, in units of σ and log σ²; 0 if no further than roundings.

        `magnitude` is the largest of the layers before.
        """
        raise NotImplementedError

    @property
    def magnitude(self) -> float:
        """The root mean square over σ of what reaches the layer."""
        return 1.0

    def _kept(self) -> list[Tensor]:
        """The statistics, in their own type."""
        return [b.clone() for b in self.layer.buffers(recurse=False) if b.is_floating_point()]

    def _see(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = input_of(args, kwargs)
        self.order = min(self.order, self._pass.arrive(x))
        self.seen += 1
        self._take(x, mask_of(layer, args, kwargs))

    def _take(self, x: Tensor, mask: Tensor | None) -> None:
        raise NotImplementedError


class _PooledLayer(_Layer):
    """Batch norm: the exact moments of all values that count."""

    def __init__(self, norm: Normalizer, within: _Pass, settled: bool) -> None:
        super().__init__(norm, within, settled)
        self._pooled = Pooled()

    def _take(self, x: Tensor, mask: Tensor | None) -> None:
        batched = x if x.dim() > 1 else x[None]
        kept = None if mask is None else self._by_channel(mask.expand_as(batched))
        self._pooled.merge(self._by_channel(batched), kept)
        if not self.settled:
            self._store(self._pooled)

    def _by_channel(self, x: Tensor) -> Tensor:
        """The values with the channels on axis 1, all of them there if they lie on several."""
        first, width = self.norm.channel_axis(x.dim()), self.layer.running_mean.dim()
        return x.flatten(first, first + width - 1).movedim(first, 1)

    def write(self, group: dist.ProcessGroup | None) -> None:
        pooled = self._pooled
        if in_group():
            pooled = pooled.over_ranks(group, self.layer.running_mean.numel())
        self.reached = pooled.count > 0
        if not self.reached:
            return
        self._check(pooled)
        self._store(pooled)
        if self.layer.num_batches_tracked is not None:
            self.layer.num_batches_tracked.fill_(max(self.seen, 1))

    def moved(self, magnitude: float) -> float:
        before, now = ([double(b) for b in kept[:2]] for kept in (self._before, self._kept()))
        epsilon = torch.finfo(self.layer.running_mean.dtype).eps
        moved = _moved((before[0], before[1]), (now[0], now[1]), self.layer.eps, epsilon, magnitude)
        return float(moved.max())

    @property
    def magnitude(self) -> float:
        mean, var = (double(b) for b in self._kept()[:2])
        return float(_over_sigma(mean, var, self.layer.eps).square().mean().sqrt())

    def _store(self, pooled: Pooled) -> None:
        running = self.layer.running_mean, self.layer.running_var
        new = pooled.beside(*(statistic.flatten() for statistic in running))
        for statistic, values in zip(running, new, strict=True):
            statistic.copy_(values.reshape(statistic.shape))

    def _check(self, pooled: Pooled) -> None:
        if not bool(pooled.mean.isfinite().all()):
            raise AnynormError(
                f"what reaches {self.norm.name!r} is not finite, so it has no statistics. Look for "
                "NaN or infinite values in the batches and in the weights before it."
            )


_Statistics = tuple[Tensor, Tensor]


def _moved(
    before: _Statistics, now: _Statistics, eps: float, epsilon: float, magnitude: float
) -> Tensor:
    """How far mean and variance moved in units of σ and log σ²; 0 if no further than roundings.

    Both are as they are kept, in float64; `epsilon` is the machine epsilon of the type they have.
    """
    (old_mean, old_var), (mean, var) = before, now
    by_mean = (mean - old_mean).abs() / (var + eps).sqrt()
    by_var = ((var + eps).log() - (old_var + eps).log()).abs()
    # A channel that is constant has σ = 0 and, if nothing moved, 0/0.
    by_mean = torch.where(mean == old_mean, 0.0, by_mean)
    by_var = torch.where((var == old_var) | (var.isnan() & old_var.isnan()), 0.0, by_var)
    moved = torch.maximum(by_mean, by_var).nan_to_num(nan=torch.inf)
    own = _over_sigma(mean, var, eps).nan_to_num(nan=1.0, posinf=1.0)
    return torch.where(moved <= _ROUNDINGS * epsilon * own.clamp_min(magnitude), 0.0, moved)


def _over_sigma(mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """The root mean square of values over their σ."""
    return (1 + mean.square() / (var + eps)).sqrt()


class _AveragedLayer(_Layer):
    """Any other statistic: the average of the batches', weighted by what counts in them."""

    def __init__(self, norm: Normalizer, within: _Pass, settled: bool) -> None:
        super().__init__(norm, within, settled)
        self._momentum, self._samples = self.layer.momentum, 0.0

    def begin(self) -> None:
        super().begin()
        self.layer.training = True

    def end(self) -> None:
        super().end()
        self.layer.momentum = self._momentum

    def _take(self, x: Tensor, mask: Tensor | None) -> None:
        if not self._samples:
            start_anew(self.layer)
        size = float(len(x))
        if mask is not None and len(x):
            size *= mask.double().mean().item()
        self._samples += size
        # The running average with this momentum is the average weighted by the batches' sizes.
        self.layer.momentum = size / self._samples if size else 0.0

    def write(self, group: dist.ProcessGroup | None) -> None:
        self.reached = anyone(self.seen > 0, group)
        if in_group():
            for buffer in self.layer.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(averaged(buffer, self._samples, group))

    def moved(self, magnitude: float) -> float:
        pairs = zip(self._before, self._kept(), strict=True)
        return max(_relative(old, new, magnitude) for old, new in pairs)


def _relative(old: Tensor, new: Tensor, magnitude: float) -> float:
    """How far a statistic moved beside its largest number; 0 if no further than roundings."""
    bound = _ROUNDINGS * torch.finfo(new.dtype).eps * magnitude
    old, new = double(old), double(new)
    moved = float((new - old).abs().max() / new.abs().max().clamp_min(1e-30))
    return 0.0 if moved <= bound else moved


@torch.no_grad()
def start_anew(layer: nn.Module) -> None:
    """Set running statistics to those of a fresh layer, with or without a count of batches."""
    for name, statistic in layer.named_buffers(recurse=False):
        if name == "running_cov":
            statistic.copy_(torch.eye(statistic.shape[-1]))
        elif name.startswith("running_") or name == "num_batches_tracked":
            statistic.fill_(name == "running_var")
