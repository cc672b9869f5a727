"""The sizes of the values that reach a layer: the largest and where it is, the median, s² and ε."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anynorm.doctor.geometry import double, epsilon, rows_of, sets_of
from anynorm.surgery.normalizers import Normalizer

__all__ = ["Magnitudes"]

_SAMPLED = 4096  # values of a batch that the median is taken of


@dataclass(eq=False)
class Magnitudes:
    """The sizes of the inputs of one layer.

    Args:
        norm: the layer.
        largest: the largest |x|.
        channel: its channel.
        position: its position within its sample, in the order of memory.
        medians: the median |x| of each batch.
        sets: how many sets of values had a statistic, not counting those of zeros.
        small: how many of them had s² below ε.
        dtype: the type of the inputs.
    """

    norm: Normalizer
    largest: float = 0.0
    channel: int = 0
    position: int = 0
    medians: list[float] = field(default_factory=list)
    sets: int = 0
    small: int = 0
    dtype: torch.dtype = torch.float32

    def add(self, x: Tensor) -> None:
        """Take an input of finite values."""
        self.dtype = x.dtype
        rows = rows_of(self.norm, x).abs()
        place = int(rows.argmax())
        largest = float(rows.flatten()[place])
        if largest > self.largest:
            _, positions, channels = rows.shape
            self.largest = largest
            self.channel, self.position = place % channels, place // channels % positions
        step = max(rows.numel() // _SAMPLED, 1)
        # An odd step visits all channels.
        sampled = rows.flatten()[:: step + (step % 2 == 0)]
        self.medians.append(float(sampled.double().median()))
        if self._has_scale:
            squares = self._squares(double(sets_of(self.norm, x)))
            self.sets += int((squares > 0).sum())
            self.small += int(((squares > 0) & (squares < epsilon(self.norm.layer))).sum())

    @property
    def _has_scale(self) -> bool:
        """Whether σ = √(s² + ε), with s² a mean of squares of each input."""
        spec = self.norm.spec
        plain = spec.scale is not None and spec.scale.p == 2 and spec.scale.root is None
        return plain and spec.dialect.eps == "inside" and not self.norm.keeps

    def _squares(self, sets: Tensor) -> Tensor:
        scale = self.norm.spec.scale
        assert scale is not None
        centred = scale.origin == "mean"
        mean = sets.mean(1, keepdim=True) if centred else 0.0
        return (sets - mean).square().mean(1) * scale.factor(sets.shape[1]) ** 2

    @property
    def median(self) -> float:
        """The median of the batches' medians."""
        return statistics.median_high(self.medians) if self.medians else 0.0
