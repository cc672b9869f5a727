"""Statistics of inputs in which one value is frequent, as 0 is behind a ReLU.

Sums in single precision see their values less some number near the mean.  If that is not the
frequent value itself, the same difference is added, and rounded to the same side, many times.
"""

from __future__ import annotations

import pytest
import torch
from samples import needs_kernels

from anynorm.ops import Affine, Statistic, merged_statistics, standardize

# The kernels of rows, planes and columns: shape, axes of the statistics, memory format.
LAYOUTS = {
    "layer": ((64, 16384), [1], torch.contiguous_format),
    "batch": ((64, 32, 28, 28), [0, 2, 3], torch.contiguous_format),
    "channels last": ((64, 32, 28, 28), [0, 2, 3], torch.channels_last),
    "no positions": ((16384, 32), [0], torch.contiguous_format),
    "group": ((16, 8, 6272), [2], torch.contiguous_format),
}


@needs_kernels
@pytest.mark.parametrize("level", [0.0, 3.0])
@pytest.mark.parametrize("others", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_frequent_value(layout: str, others: float, level: float) -> None:
    shape, dims, memory = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(0)
    other = torch.rand(shape, generator=generator) < others
    values = torch.randn(shape, generator=generator).abs() + level
    x = torch.where(other, values, level).contiguous(memory_format=memory)
    _, mean, square = standardize(x, Affine(), Statistic(dims, True, True, 2.0, 1.0, 1e-5))
    _near(mean, square, x.double(), dims)


@pytest.mark.parametrize("far", [0.0, 3.0])
def test_few_values_that_a_mask_lets_count(far: float) -> None:
    """Those that do not count are all one value."""
    x = 5 * torch.randn(4, 8, 33, 64, generator=torch.Generator().manual_seed(0)) + far
    mask = torch.zeros(1, 8, 1, 64, dtype=torch.bool)
    sample = torch.arange(64) % 8
    mask[0, sample, 0, torch.arange(64)] = True
    statistic = Statistic([1, 2], True, True, 2.0, 1.0, 1e-5)
    found = merged_statistics.pool(torch.where(mask, x, 0), statistic, mask=mask)
    picked = x[:, sample, :, torch.arange(64)].double()  # (64, 4, 33)
    mean, square = (t[:, 0, 0].T for t in (found.mean, found.square))
    _near(mean, square, picked, [2])


def _near(mean: torch.Tensor, square: torch.Tensor, x: torch.Tensor, dims: list[int]) -> None:
    right = x.mean(dims, keepdim=True).flatten(), x.var(dims, correction=0).flatten()
    eps = torch.finfo(torch.float32).eps
    away = (mean.flatten() - right[0]).abs() / right[1].sqrt()
    assert away.max() < 16 * eps
    assert ((square.flatten() - right[1]).abs() / right[1]).max() < 64 * eps
