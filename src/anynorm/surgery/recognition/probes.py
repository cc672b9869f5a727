"""Inputs that tell normalizers apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["battery", "drawn", "longer_shape", "probe_shape", "seen_shape"]

_FEW = 4  # samples and positions: more show nothing else
_LARGE = 1 << 18  # values of an input


def probe_shape(shape: Sequence[int], widths: Sequence[int]) -> list[int]:
    """Return a smaller shape for the probes: the axes that may be the channels keep their size.

    `widths` are the sizes of the parameters.  The first axis has at least two samples.

    >>> probe_shape((1, 300, 64), [64])
    [2, 4, 64]
    """
    kept = {axis for axis, size in enumerate(shape) if size in widths}
    kept = kept or {1, len(shape) - 1}  # if no parameter says where the channels are
    small = [size if axis in kept else min(size, _FEW) for axis, size in enumerate(shape)]
    small[0] = max(small[0], 2)
    return small


def seen_shape(shape: Sequence[int]) -> list[int]:
    """Return the shape of an input that was seen, with fewer samples if it is large.

    >>> seen_shape((8, 3, 4)), seen_shape((64, 512, 512))
    ([8, 3, 4], [2, 512, 512])
    """
    few = [min(shape[0], 2), *shape[1:]]
    return list(shape) if math.prod(shape) <= _LARGE else few


def longer_shape(shape: Sequence[int], channels: int) -> list[int]:
    """Return a shape with more samples and positions; the axis of the channels stays.

    >>> longer_shape((2, 4, 64), 2)
    [4, 6, 64]
    """
    return [size if axis == channels else size + 2 for axis, size in enumerate(shape)]


def drawn(shape: Sequence[int], seed: int = 1) -> Tensor:
    """Return standard Gaussian values in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def battery(x: Tensor) -> dict[str, Tensor]:
    """Return inputs by what they test, made of ordinary values `x`."""
    dominant = x.clone()
    dominant.select(-1, 0).mul_(1e4)
    return {
        "ordinary values": x,
        "a mean of 1,000 standard deviations": x + 1e3,
        "values of 0.001": x * 1e-3,
        "values of 1e-6": x * 1e-6,
        "one dominant channel": dominant,
        "zeros": torch.zeros_like(x),
    }
