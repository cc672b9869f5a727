"""Statistics without an output are summed in float64, whatever the type of the values.

That they are those of the formula at all, and the same on any number of threads, is tested with the
other operators.
"""

from __future__ import annotations

import math

import pytest
import torch
from samples import LONG, OPERATORS, WAYS, Case, Draw, make, needs_kernels
from torch import Tensor

from anynorm.ops.moments import measure
from anynorm.ops.types import Statistic

pytestmark = needs_kernels
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CASES = [
    *WAYS,
    *LONG,
    Case("instance", (5, 17, 3, 3)),
    Case("instance", (5, 17, 6, 6), "cut"),
    Case("instance", (3, 33, 12, 12), "offset"),
    Case("instance", (2, 65, 24, 24), "channels last"),
]


def moments(x: Tensor, dims: list[int], p: float = 2.0) -> tuple[Tensor, Tensor]:
    mean, square = OPERATORS.moments(x, dims, True, True, p, 1.0)
    return mean, square


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums_are_in_float64(case: Case, dtype: torch.dtype) -> None:
    sample = make(case, Draw(dtype))
    dims, wide = sample.statistic.dims, sample.x.double()
    mean = wide.mean(dims, keepdim=True)
    for p in (2.0, 1.0):
        found = moments(sample.x, dims, p)
        truth = (wide - mean).abs().pow(p).mean(dims, keepdim=True).pow(2 / p)
        # Numbers of order one; sums of up to 1e5 of them in pieces.
        torch.testing.assert_close(found, (mean, truth), rtol=1e-13, atol=1e-14)


# The variance is 1e-12 of the squared mean; the values are exact in float32.
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("far", [0.0, 2.0**20, -(2.0**20)])
@pytest.mark.parametrize("size", [1, 3, 13, 40])
def test_a_large_mean_costs_no_digits(size: int, far: float, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    near = torch.randint(-8, 8, (3, 5, size, size), generator=generator) / 8.0
    x = (near + far).to(memory_format=layout)
    assert torch.equal(x.double(), near.double() + far)
    mean, square = moments(x, [2, 3])
    torch.testing.assert_close(
        mean - far, near.double().mean([2, 3], keepdim=True), rtol=0, atol=1e-9
    )
    variance = near.double().var([2, 3], keepdim=True, unbiased=False)
    torch.testing.assert_close(square, variance, rtol=1e-12, atol=1e-15)


def test_a_single_value_has_no_deviation() -> None:
    x = torch.randn(4, 3, 1, 1)
    mean, square = moments(x, [2, 3])
    assert torch.equal(mean, x.double())
    assert torch.equal(square, torch.zeros_like(mean))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_without_values_they_are_those_of_the_formula(shape: tuple[int, ...]) -> None:
    x = torch.empty(shape)
    expected = OPERATORS.moments_formula(x, [2], True, True, 2.0, 1.0)
    torch.testing.assert_close(moments(x, [2]), expected, equal_nan=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [3, 6, 40])
def test_a_bad_value_spoils_its_own_set_alone(
    size: int, layout: torch.memory_format, bad: float
) -> None:
    x = torch.randn(3, 17, size, size).to(memory_format=layout)
    x[1, 5, size // 2, -1] = bad
    for found in moments(x, [2, 3]):
        spoilt = ~found.isfinite()
        assert spoilt[1, 5].all()
        assert spoilt.sum() == 1


def test_vmap_takes_all_samples_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    x, statistic = torch.randn(3, 4, 6, 5), Statistic([0, 2], True, True, 2.0, 1.0, 1e-5)
    found = torch.vmap(lambda one: measure(one, statistic))(x)
    expected = [
        torch.stack(part) for part in zip(*(measure(one, statistic) for one in x), strict=True)
    ]
    torch.testing.assert_close(found, tuple(expected))
    assert "performance drop" not in capfd.readouterr().err
