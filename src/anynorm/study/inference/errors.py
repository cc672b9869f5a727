"""Standard errors of differences, by rules that depend on the data.

Three questions about the data decide. None of them depends on which sample is better:

- Does a seed have the same effect on all samples? Then seeds are blocks, and the effect is removed.
- Are the spreads equal? Then variances are pooled, as in Dunnett's and Tukey's tests. A sample with
  a suspiciously large spread keeps its own variance, as in Welch's test. With ten seeds or more
  each sample keeps its own variance, since pooling gains nothing any more.
- Is the outcome of each held-out item known? Then the random choice of the items counts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from anynorm.study.inference.sample import Array, Sample

__all__ = ["Difference", "Errors", "item_variance"]

# Levels at which spreads are called different, or the effect of seeds real. With these values the
# simulation (benchmarks/verdict.py) keeps the overall error rate.
_SPREADS, _LARGE_SPREAD, _SEED_EFFECT = 0.05, 0.15, 0.05
_ENOUGH = 10
_RIGHT = 100.0  # the value of a right item, so that means are in per cent


@dataclass(frozen=True)
class Difference:
    """The difference of two samples with the parts of its variance.

    `seeds` and `items` are the variances due to the choice of seeds and of held-out items. `share`
    is the part of the seeds' variance that comes from the second sample, `count` is the number of
    seeds, and `method` says how variances were pooled.
    """

    value: float
    seeds: float
    items: float
    seed_freedom: float
    item_freedom: float
    share: float
    count: int
    method: str

    @property
    def error(self) -> float:
        """The standard error."""
        return float(np.sqrt(self.seeds + self.items))

    @property
    def freedom(self) -> float:
        """Degrees of freedom by Satterthwaite's rule."""
        parts = ((self.seeds, self.seed_freedom), (self.items, self.item_freedom))
        below = sum(variance**2 / freedom for variance, freedom in parts if freedom > 0)
        total = self.seeds + self.items
        return float(max(1.0, total**2 / below)) if below > 0 else self.seed_freedom


class Errors:
    """Standard errors of the differences between `samples`, none of which has a diverged run."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.values = [sample.finite for sample in samples]
        self.blocks = self._seed_effect()
        self.variances = self._variances()
        self.pooled, self.pooled_freedom = self._pooled()
        self.large = self._large()

    def difference(self, first: int, second: int) -> Difference:
        """The difference of two samples, by their places in the list."""
        a, b = self.samples[first], self.samples[second]
        pooled = not (self.large[first] or self.large[second])
        if pooled:
            parts = [self.pooled / len(self.values[k]) for k in (first, second)]
            seeds, freedom = sum(parts), self.pooled_freedom
            share, method = parts[1] / seeds if seeds else 0.5, "pooled"
        elif self.blocks:
            seeds, freedom = _paired(self.values[first] - self.values[second])
            both = self.variances[first] + self.variances[second]
            share, method = self.variances[second] / both, "paired"
        else:
            seeds, freedom, share = _welch(self.values[first], self.values[second])
            method = "separate"
        items, item_freedom = item_variance(a, b)
        return Difference(
            value=float(self.values[first].mean() - self.values[second].mean()),
            seeds=seeds,
            items=items,
            seed_freedom=freedom,
            item_freedom=item_freedom,
            share=share,
            count=min(len(self.values[k]) for k in (first, second)),
            method=method + (", seeds as blocks" if pooled and self.blocks else ""),
        )

    def _seed_effect(self) -> bool:
        """Whether a seed has the same effect on all samples; False if samples differ in seeds."""
        if len({tuple(sample.seeds) for sample in self.samples}) > 1 or len(self.values[0]) < 3:
            return False
        table = np.stack(self.values)
        between, within = _two_way(table)
        count, seeds = table.shape
        freedom = (seeds - 1, (count - 1) * (seeds - 1))
        return bool(within > 0 and special.fdtrc(*freedom, between / within) < _SEED_EFFECT)

    def _variances(self) -> Array:
        """The variance of each sample, without the effect of the seeds if it is removed."""
        if not self.blocks or len(self.values) < 3:
            return np.array([values.var(ddof=1) for values in self.values])
        table = np.stack(self.values)
        residuals = table - table.mean(axis=0)
        variances: Array = residuals.var(axis=1, ddof=1) * len(table) / (len(table) - 1)
        return variances

    def _pooled(self) -> tuple[float, float]:
        freedoms = np.array([len(values) - 1 for values in self.values])
        if self.blocks:
            count, seeds = len(self.values), len(self.values[0])
            return _two_way(np.stack(self.values))[1], (count - 1) * (seeds - 1)
        return float(self.variances @ freedoms / freedoms.sum()), float(freedoms.sum())

    def _large(self) -> list[bool]:
        """Which samples keep their own variance."""
        counts = [len(values) for values in self.values]
        if len(self.values) == 2 and self.blocks:
            return [False, False]  # the residuals of two samples are each other's mirror image
        # With seeds as blocks, a pair has few degrees of freedom, so pooling always gains.
        enough = max(counts) >= _ENOUGH and not self.blocks
        if min(counts) < 3 or enough or _differ(self.variances, counts):
            return [True] * len(counts)
        return [self._is_large(place, counts) for place in range(len(counts))]

    def _is_large(self, place: int, counts: Sequence[int]) -> bool:
        others = np.delete(self.variances, place)
        freedoms = np.delete(np.array(counts) - 1, place)
        rest = float(others @ freedoms / freedoms.sum())
        if rest <= 0:
            return bool(self.variances[place] > 0)
        ratio = self.variances[place] / rest
        return bool(special.fdtrc(counts[place] - 1, freedoms.sum(), ratio) < _LARGE_SPREAD)


def _differ(variances: Array, counts: Sequence[int]) -> bool:
    """Bartlett's test of equal variances, on the variances themselves."""
    if (variances <= 0).any():
        return bool((variances > 0).any())
    freedoms = np.array(counts) - 1.0
    total = freedoms.sum()
    pooled = variances @ freedoms / total
    statistic = total * np.log(pooled) - freedoms @ np.log(variances)
    correction = 1 + ((1 / freedoms).sum() - 1 / total) / (3 * (len(counts) - 1))
    return bool(special.chdtrc(len(counts) - 1, statistic / correction) < _SPREADS)


def _two_way(table: Array) -> tuple[float, float]:
    """Mean squares between the columns, and of the residuals, of a table (rows, columns)."""
    rows, columns = table.shape
    by_row, by_column = table.mean(axis=1, keepdims=True), table.mean(axis=0)
    rest = table - by_row - by_column + table.mean()
    between = rows * by_column.var(ddof=1)
    return float(between), float((rest**2).sum() / ((rows - 1) * (columns - 1)))


def _paired(differences: Array) -> tuple[float, float]:
    return float(differences.var(ddof=1) / len(differences)), len(differences) - 1.0


def _welch(a: Array, b: Array) -> tuple[float, float, float]:
    """Variance, degrees of freedom, and the second sample's share of the variance."""
    first, second = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    total = float(first + second)
    if total <= 0:
        return 0.0, float(len(a) + len(b) - 2), 0.5
    freedom = total**2 / (first**2 / (len(a) - 1) + second**2 / (len(b) - 1))
    return total, float(freedom), float(second / total)


def item_variance(a: Sample, b: Sample) -> tuple[float, float]:
    """The variance of the difference due to the choice of the held-out items, which both share.

    It is the variance between the items' mean differences, minus the part that the noise of each
    item over the seeds explains. If items are right or wrong, one more item that differs in each
    direction is assumed, since unseen differences may exist.
    """
    if a.items is None or b.items is None or a.items.shape[1] != b.items.shape[1]:
        return 0.0, 0.0
    count = a.items.shape[1]
    if count < 2:
        return 0.0, 0.0
    difference = a.items.mean(axis=0) - b.items.mean(axis=0)
    noise = sum(_noise(sample.items) for sample in (a, b))
    variance = max(0.0, float(difference.var(ddof=1)) - noise) / count
    values = np.unique(np.concatenate([a.items, b.items]))
    if len(values) <= 2:
        variance += 2 * (_RIGHT / count) ** 2
    return variance, count - 1.0


def _noise(items: Array | None) -> float:
    """The variance of an item's mean over seeds that is due to the seeds."""
    if items is None or len(items) < 2:
        return 0.0
    rest = items - items.mean(axis=1, keepdims=True) - items.mean(axis=0) + items.mean()
    freedom = (items.shape[0] - 1) * (items.shape[1] - 1)
    return float((rest**2).sum() / freedom / len(items))
