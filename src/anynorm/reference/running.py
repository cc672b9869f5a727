"""Running statistics: what evaluation uses in place of a batch's own μ and σ."""

from __future__ import annotations

from anynorm.reference.arrays import Array, as_float64, namespace

__all__ = ["Running", "per_channel"]


class Running:
    """An exponential (or cumulative) average of batches' mean and spread.

    Mean and spread are made of blocks, the channels or groups, which enter one by one: a block that
    is not finite leaves its average as it was, and a batch of which nothing entered is not counted.

    Args:
        mean: the mean before the first batch.
        spread: s² per channel, or the covariance matrices (groups, c, c) of a whitening layer.
        blocks: the number of blocks.

    Example:
        >>> import numpy
        >>> running = Running(numpy.zeros(2), numpy.ones(2), blocks=2)
        >>> running.update(numpy.asarray([4.0, numpy.nan]), numpy.asarray([3.0, 3.0]), momentum=0.5)
        >>> running.mean.tolist(), running.spread.tolist(), running.batches
        ([2.0, 0.0], [2.0, 1.0], 1)
    """

    def __init__(self, mean: Array, spread: Array, blocks: int) -> None:
        self.mean, self.spread = mean, spread
        self.batches = 0
        self._blocks = blocks

    def update(self, mean: Array, spread: Array, momentum: float | None) -> None:
        """Let a batch enter: running = (1 − m) · running + m · batch.

        `momentum` None stands for m = 1 / batches, the plain average of all batches so far.
        """
        finite = self._finite(mean) & self._finite(spread)
        self.batches += bool(namespace(mean).any(finite))
        weight = momentum if momentum is not None else 1.0 / max(self.batches, 1)
        self.mean = self._blend(self.mean, mean, finite, weight)
        self.spread = self._blend(self.spread, spread, finite, weight)

    def _finite(self, values: Array) -> Array:
        xp = namespace(values)
        rows = xp.reshape(xp.isfinite(values), (self._blocks, -1))
        return xp.all(rows, axis=1, keepdims=True)

    def _blend(self, old: Array, new: Array, finite: Array, weight: float) -> Array:
        xp = namespace(new)
        old = as_float64(old, xp)
        rows = [xp.reshape(x, (self._blocks, -1)) for x in (old, (1 - weight) * old + weight * new)]
        return xp.reshape(xp.where(finite, rows[1], rows[0]), old.shape)


def per_channel(statistic: Array, affine: list[int], channels: tuple[int, ...]) -> Array:
    """Return a statistic of the split view in the shape `channels`.

    It is averaged over the axes that running statistics do not have (the parts of a ghost batch),
    and repeated over those that it does not have itself; `affine` is :meth:`Plan.affine_view`.
    """
    xp = namespace(statistic)
    extra = tuple(axis for axis, size in enumerate(affine) if size == 1)
    mean = xp.mean(statistic, axis=extra, keepdims=True)
    return xp.reshape(xp.broadcast_to(mean, tuple(affine)), channels)
