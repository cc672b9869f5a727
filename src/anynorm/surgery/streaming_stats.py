"""Exact mean and variance of values that arrive in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

from anynorm.ops.merge import merge
from anynorm.ops.moments import measure, sums_in_float64
from anynorm.ops.types import Statistic

__all__ = [
    "Pooled",
    "anyone",
    "averaged",
    "by_sample",
    "double",
    "in_group",
    "least",
    "of_samples",
    "rows_by_sample",
    "summed",
]


_Numbers = TypeVar("_Numbers", int, list[int])


def _nothing() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


@dataclass(eq=False)
class Pooled:
    """Mean and variance per channel of everything merged so far, exact and in float64.

    Batches of any size are merged by count, mean and sum of squared deviations
    (:func:`anynorm.ops.merge`), which loses no digits where a sum of squares would.

    >>> pooled = Pooled()
    >>> pooled.merge(torch.tensor([[1.0], [2.0]]))
    >>> pooled.merge(torch.tensor([[6.0]]))
    >>> pooled.mean.item(), pooled.variance.item()
    (3.0, 7.0)
    """

    counts: Tensor = field(default_factory=_nothing)
    mean: Tensor = field(default_factory=_nothing)
    squares: Tensor = field(default_factory=_nothing)  # sums of squared deviations

    @property
    def count(self) -> int:
        """The number of values per channel; the largest if they differ."""
        return int(self.counts.max())

    def merge(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Add `x`, of shape (N, C, ...), or its values where `mask` is True, which broadcasts."""
        if not x.numel():
            return
        if mask is None:
            for part in _parts(x.flatten(2) if x.dim() > 2 else x[..., None]):
                self.add(part.shape[0] * part.shape[2], *_moments(part, [0, 2]))
            return
        rows, kept = _rows(double(x)), _rows(mask.expand_as(x))
        counts = kept.sum(dim=0)
        mean = torch.where(kept, rows, 0).sum(dim=0) / counts.clamp(min=1)
        self.add(counts, mean, torch.where(kept, rows - mean, 0).square().sum(dim=0))

    def add(self, count: int | Tensor, mean: Tensor, squares: Tensor) -> None:
        """Add `count` values of each channel by their mean and sum of squared deviations."""
        if isinstance(count, int) and not count:
            return
        self.counts, self.mean, self.squares = merge(
            _stacked(self.counts, count, mean),
            _stacked(self.mean, mean, mean),
            _stacked(self.squares, squares, mean),
        )

    @property
    def variance(self) -> Tensor:
        """The unbiased variance, as in running statistics; nan for a single value."""
        return torch.where(self.counts > 1, self.squares / (self.counts - 1), torch.nan)

    def beside(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance; channels with too few values get those given."""
        own = (self.counts, self.mean, self.variance)
        counts, own_mean, own_variance = (t.to(mean.device) for t in own)
        found = torch.where(counts > 0, own_mean, mean)
        return found, torch.where(counts > 1, own_variance, variance)

    def over_ranks(self, group: dist.ProcessGroup | None, channels: int) -> Pooled:
        """The values of all processes of `group`, merged in the order of their ranks."""
        parts = (self.counts, self.mean, self.squares)
        own = torch.stack([part.expand(channels) for part in parts]).to(_device(group))
        found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(found, own, group=group)
        return Pooled(*merge(*torch.stack(found, 1)))


PIECE = 2**18  # values: float64 of that size is memory that was used before, not new pages


def _parts(x: Tensor) -> Iterator[Tensor]:
    """`x` for `_moments`: itself if a kernel sums it in float64, else float64 copies of pieces."""
    if sums_in_float64(x):
        yield x.detach()
    else:
        yield from map(double, x.split(max(PIECE * len(x) // max(x.numel(), 1), 1)))


def _moments(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and sum of squared deviations along `axes`."""
    mean, square = measure(x, Statistic(axes, True, True, 2.0, 1.0, 0.0))
    count = x.numel() // max(mean.numel(), 1)
    return mean.squeeze(axes), square.squeeze(axes).mul_(count)


def by_sample(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sum of squared deviations of each sample of (samples, positions, channels).

    In float64, also their sums.

    >>> [tuple(part.shape) for part in by_sample(torch.zeros(5, 4, 3))]
    [(5, 3), (5, 3)]
    """
    means, squares = zip(*(_moments(part, [1]) for part in _parts(x)), strict=True)
    return torch.cat(means), torch.cat(squares)


def rows_by_sample(rows: Tensor, samples: int, axis: int = 0) -> Tensor:
    """Rows of shape (rows, positions, channels) with those of one sample as its positions.

    Rows that are no multiple of the samples stay as they are.

    Args:
        rows: the rows.
        samples: how many samples the batch has; 0 if that is not known.
        axis: 0 if the rows of a sample are together, 1 if those of all samples come in turn.

    Returns:
        The rows, of shape (samples, positions, channels).

    Example:
        >>> rows_by_sample(torch.zeros(6, 1, 4), 2).shape
        torch.Size([2, 3, 4])
    """
    if not samples or len(rows) <= samples or len(rows) % samples:
        return rows
    channels = rows.shape[2]
    if axis:
        turned = rows.reshape(-1, samples, *rows.shape[1:]).transpose(0, 1)
        return turned.reshape(samples, -1, channels)
    return rows.reshape(samples, -1, channels)


def of_samples(rows: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and squared deviations of each sample, of (samples, positions, channels).

    >>> [tuple(part.shape) for part in of_samples(torch.zeros(5, 4, 3), None)]
    [(5, 1), (5, 3), (5, 3)]
    """
    if kept is None:
        counts = torch.full((len(rows), 1), rows.shape[1], dtype=torch.float64)
        means, squares = by_sample(rows)
        return counts, means.cpu(), squares.cpu()
    rows = double(rows)
    counts = kept.sum(dim=1).double()
    means = torch.where(kept, rows, 0).sum(dim=1) / counts.clamp(min=1)
    squares = torch.where(kept, rows - means[:, None], 0).square().sum(dim=1)
    return counts.cpu(), means.cpu(), squares.cpu()


def _stacked(ours: Tensor, theirs: int | Tensor, like: Tensor) -> Tensor:
    return torch.stack([torch.as_tensor(t).to(like).expand_as(like) for t in (ours, theirs)])


def _rows(x: Tensor) -> Tensor:
    """(N, C, ...) as (values, C)."""
    return x.movedim(1, -1).flatten(0, -2)


def in_group() -> bool:
    """Whether a process group of torch.distributed is initialized."""
    return dist.is_available() and dist.is_initialized()


def anyone(here: bool, group: dist.ProcessGroup | None) -> bool:
    """Whether a condition holds on any process of `group`; without a group, on this one.

    >>> anyone(True, None)
    True
    """
    if not in_group():
        return here
    flag = torch.tensor(int(here), device=_device(group))
    dist.all_reduce(flag, dist.ReduceOp.MAX, group=group)
    return bool(flag)


def least(numbers: _Numbers, group: dist.ProcessGroup | None) -> _Numbers:
    """The smallest number of any process of `group`, or the smallest of each place in a list.

    >>> least(3, None), least([3, 1], None)
    (3, [3, 1])
    """
    if not in_group():
        return numbers
    found = torch.tensor(numbers, dtype=torch.int64, device=_device(group))
    dist.all_reduce(found, dist.ReduceOp.MIN, group=group)
    return cast(_Numbers, found.tolist())


def averaged(x: Tensor, weight: float, group: dist.ProcessGroup | None) -> Tensor:
    """The weighted average of `x` over the processes of `group`, equal on all of them.

    Where no process has weight, `x` itself.
    """
    device = _device(group)
    parts = torch.cat(
        [
            double(x).flatten() * weight if weight else x.new_zeros(x.numel()).double(),
            torch.tensor([weight], dtype=torch.float64, device=x.device),
        ]
    ).to(device)
    dist.all_reduce(parts, group=group)
    total = parts[-1]
    return (parts[:-1] / total).reshape(x.shape).to(x) if total > 0 else x


def summed(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The sum of `x` over the processes of `group`; without a group, `x` itself.

    >>> summed(torch.ones(2), None)
    tensor([1., 1.])
    """
    if not in_group():
        return x
    total = x.to(_device(group), copy=True)
    dist.all_reduce(total, group=group)
    return total.to(x)


def double(x: Tensor) -> Tensor:
    """Return `x` in float64, detached; on the CPU for Apple's GPUs, which have no float64."""
    return x.detach().cpu().double() if x.device.type == "mps" else x.detach().double()


def _device(group: dist.ProcessGroup | None) -> torch.device:
    """The device for the group's tensors."""
    on_gpu = dist.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
