"""Moments measured in pieces are those of the whole, and leave what they measure alone."""

from __future__ import annotations

import pytest
import torch

from anynorm.surgery import streaming_stats
from anynorm.surgery.streaming_stats import Pooled, by_sample


def in_pieces(monkeypatch, values):
    """Without kernels."""
    monkeypatch.setattr(streaming_stats, "sums_in_float64", lambda x: False)
    monkeypatch.setattr(streaming_stats, "PIECE", values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 5), (7, 3, 4, 6)])
def test_pieces_have_the_moments_of_the_whole(dtype, shape, monkeypatch):
    x = torch.randn(shape, dtype=torch.float64).to(dtype) + 3
    before, flat = x.clone(), x.double().movedim(1, -1).flatten(0, -2)
    in_pieces(monkeypatch, 20)
    pooled = Pooled()
    pooled.merge(x)
    assert pooled.count == len(flat)
    torch.testing.assert_close(pooled.mean, flat.mean(0))
    torch.testing.assert_close(pooled.variance, flat.var(0))
    assert torch.equal(x, before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_sample_has_its_own(layout, monkeypatch):
    x = torch.randn(5, 3, 4, 6).to(memory_format=layout)
    rows = x.movedim(1, -1).reshape(5, 24, 3)
    for _ in range(2):
        means, squares = by_sample(rows)
        assert means.dtype == squares.dtype == torch.float64
        torch.testing.assert_close(means, rows.double().mean(1), rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(squares, rows.double().var(1) * 23, rtol=1e-13, atol=1e-14)
        in_pieces(monkeypatch, 100)
