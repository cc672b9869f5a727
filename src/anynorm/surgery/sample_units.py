"""Samples as the unit of every statistical test, however they are cut into batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from anynorm.ops.merge import merge

__all__ = ["Units", "samples", "together"]

LIMIT = 128  # units that are kept, if nothing else is said
_BLOCKS = 8  # fewer say too little about how their means vary


@dataclass(eq=False)
class Units:
    """Count, mean and sum of squared deviations of each sample, or of runs of samples.

    The values of one sample depend on each other, so samples, not values, are what a test counts.
    Sample number i belongs to unit i // size.  The size doubles whenever there would be more units
    than `limit`, a power of two, so that units depend on the order of the samples alone, not on
    their batches.

    Example:
        >>> whole, parts = Units(), Units()
        >>> x = torch.randn(1000, 3, dtype=torch.float64)
        >>> whole.add(0, *samples(x)); parts.add(0, *samples(x[:7])); parts.add(7, *samples(x[7:]))
        >>> whole.size, len(whole.means), bool((whole.means - parts.means).abs().max() < 1e-12)
        (8, 125, True)
    """

    limit: int = LIMIT
    size: int = 1
    samples: int = 0
    counts: Tensor | None = None  # all of shape (units, channels)
    means: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.float64))

    def add(self, start: int, counts: Tensor, means: Tensor, squares: Tensor) -> None:
        """Merge consecutive samples, the first of which has the number `start`."""
        number = len(means)
        self.samples = max(self.samples, start + number)
        while (self.samples - 1) // self.size >= self.limit:
            self._halve()
        unit = torch.arange(start, start + number) // self.size
        merged = _merged(unit, (self.samples - 1) // self.size + 1, counts, means, squares)
        if self.counts is None:
            self.counts, self.means, self.squares = merged
            return
        more = len(merged[1]) - len(self.means)
        kept = (torch.cat([t, t.new_zeros(more, t.shape[1])]) for t in self._parts())
        both = (torch.cat(pair) for pair in zip(kept, merged, strict=True))
        unit = torch.arange(len(merged[1])).repeat(2)
        self.counts, self.means, self.squares = _merged(unit, len(merged[1]), *both)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self.counts is not None
        return self.counts, self.means, self.squares

    def merged(self) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean and sum of squared deviations of all samples."""
        return merge(*self._parts())

    def _halve(self) -> None:
        self.size *= 2
        if self.counts is not None:
            unit = torch.arange(len(self.means)) // 2
            self.counts, self.means, self.squares = _merged(unit, int(unit[-1]) + 1, *self._parts())

    def influences(self) -> tuple[Tensor, Tensor]:
        """By how much each unit moves the mean and the variance of all, of shape (units, channels).

        They sum to 0 over the units, and their sum of squares estimates the noise.
        """
        counts, means, squares = self._parts()
        total = counts.sum(dim=0).clamp(min=1)
        mean = (counts * means).sum(dim=0) / total
        deviations = squares + counts * (means - mean).square()
        variance = deviations.sum(dim=0) / total
        return counts * (means - mean) / total, (deviations - counts * variance) / total

    @staticmethod
    def clustering(influence: Tensor) -> float:
        """How much larger the noise is because neighbours are alike; 1 where they are not.

        In batches that are sorted, or cut from one film, neighbours have less to say together than
        samples drawn at random.  Runs of 2, 4, 8, ... units are summed: of independent units, the
        squares of these sums are as large as those of the units.  Only an excess beyond what noise
        explains counts, over all channels together.
        """
        alone, largest = influence.square().sum(dim=0), 1.0
        run = 2
        while (blocks := len(influence) // run) >= _BLOCKS:
            whole = influence[: blocks * run]
            sums = whole.reshape(blocks, run, -1).sum(dim=1)
            ratio = float((sums.square().sum(dim=0) / alone.clamp(min=1e-300)).mean())
            if ratio > 1 + 3 * (2 / blocks) ** 0.5:
                largest = max(largest, ratio)
            run *= 2
        return largest


def _merged(
    unit: Tensor, units: int, counts: Tensor, means: Tensor, squares: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge rows by the number of their unit (Chan, Golub, LeVeque 1983)."""
    shape = (units, means.shape[1])
    empty = torch.zeros(shape, dtype=means.dtype)
    total = empty.index_add(0, unit, counts.expand_as(means))
    mean = empty.index_add(0, unit, counts * means) / total.clamp(min=1)
    within = squares + counts * (means - mean[unit]).square()
    return total, mean, empty.index_add(0, unit, within)


def samples(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and squares of samples of one value each, of shape (samples, channels).

    Example:
        >>> [part.shape for part in samples(torch.zeros(5, 3))]
        [torch.Size([5, 3]), torch.Size([5, 3]), torch.Size([5, 3])]
    """
    return torch.ones_like(x), x, torch.zeros_like(x)


def together(one: Tensor, other: Tensor) -> Tensor:
    """By how much units move a difference, from their influences on both of its sides.

    Both count the same samples.  Where one side has fewer units, of more samples each, those of the
    other are summed, and what one side has not seen moves nothing there.

    Example:
        >>> together(torch.ones(4, 1), torch.ones(2, 1)).flatten()
        tensor([1., 1.])
    """
    fewer = min(len(one), len(other))
    parts = []
    for influence in (one, other):
        run = 1
        while -(-len(influence) // run) >= 2 * fewer:
            run *= 2
        unit = torch.arange(len(influence)) // run
        parts.append(
            influence.new_zeros(int(unit[-1]) + 1, influence.shape[1]).index_add(0, unit, influence)
        )
    units = max(map(len, parts))
    first, second = (torch.cat([p, p.new_zeros(units - len(p), p.shape[1])]) for p in parts)
    return first - second
