"""Permutation tests for samples in which runs diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from anynorm.study.inference.sample import Array, Sample

__all__ = ["p_values"]

_RESAMPLES = 1999


def p_values(samples: Sequence[Sample], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return one-sided p-values, adjusted for all `pairs`, for the first sample being better.

    A diverged run counts as worse than every run that finished. Values are replaced by the normal
    scores of their ranks (van der Waerden). If all samples have the same distribution, the test is
    exact for any distribution and any rate of divergence. The statistic is the difference of the
    mean scores, divided by their pooled standard deviation. Each pair is compared with the
    distribution of the largest statistic over all pairs.
    """
    values = _normal_scores(samples)

    def statistics(*parts: Array, axis: int = -1) -> Array:
        return _studentized(parts, pairs, axis)

    def largest(*parts: Array, axis: int = -1) -> Array:
        return np.asarray(statistics(*parts, axis=axis).max(axis=0))

    found = stats.permutation_test(
        values,
        largest,
        permutation_type="independent",
        vectorized=True,
        n_resamples=_RESAMPLES,
        alternative="greater",
        random_state=0,
    )
    null = np.sort(np.asarray(found.null_distribution))
    observed = statistics(*values)
    reached = len(null) - np.searchsorted(null, observed - 1e-9 * np.abs(observed), side="left")
    # If not all partitions were used, the observed one counts as one of the random ones.
    extra = 0 if len(null) < _RESAMPLES else 1
    return [float(p) for p in (reached + extra) / (len(null) + extra)]


def _normal_scores(samples: Sequence[Sample]) -> list[Array]:
    """Return the normal quantiles of the ranks among all runs; diverged runs share a rank."""
    values = [
        [-math.inf if value is None else value for value in sample.values] for sample in samples
    ]
    flat = np.concatenate(values)
    scores = special.ndtri(stats.rankdata(flat) / (len(flat) + 1))
    return np.split(scores, np.cumsum([len(row) for row in values])[:-1])


def _studentized(parts: Sequence[Array], pairs: Sequence[tuple[int, int]], axis: int) -> Array:
    counts = [part.shape[axis] for part in parts]
    means = [part.mean(axis=axis) for part in parts]
    squares = sum(part.var(axis=axis) * n for part, n in zip(parts, counts, strict=True))
    freedom = max(sum(counts) - len(parts), 1)
    # If all values are equal the pooled deviation is zero: avoid a division by zero.
    deviation = np.sqrt(squares / freedom) + 1e-12 * (1 + np.abs(means[0]))
    return np.stack(
        [
            (means[a] - means[b]) / (deviation * np.sqrt(1 / counts[a] + 1 / counts[b]))
            for a, b in pairs
        ]
    )
