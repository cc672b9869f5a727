"""Moments pooled over parts."""

from __future__ import annotations

import torch

from anynorm.surgery.streaming_stats import Pooled


def test_pooling_keeps_the_digits_that_a_sum_of_squares_loses() -> None:
    x = torch.randn(1000, 1, dtype=torch.float64) + 1e8
    pooled = Pooled()
    for part in x.split(7):
        pooled.merge(part)
    assert pooled.count == 1000
    torch.testing.assert_close(pooled.mean, x.mean(dim=0))
    torch.testing.assert_close(pooled.variance, x.var(dim=0), rtol=1e-6, atol=0)


def test_positions_count_as_values_and_empty_parts_do_not() -> None:
    x, pooled = torch.randn(6, 2, 4, 4), Pooled()
    for part in (x[:4], x[:0], x[4:]):
        pooled.merge(part)
    assert pooled.count == 96
    torch.testing.assert_close(pooled.mean.float(), x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(pooled.variance.float(), x.var(dim=(0, 2, 3)))


def test_one_value_has_no_variance() -> None:
    pooled = Pooled()
    pooled.merge(torch.ones(1, 3))
    assert pooled.variance.isnan().all()
