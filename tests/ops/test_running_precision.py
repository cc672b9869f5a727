"""A running update is the weighted mean to the type's rounding, whatever replaces whatever."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import anynorm
from anynorm.ops import Running

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SCALES = (1e-3, 0.03, 1.0, 100.0)  # of the batch's deviation; the running one starts from 1
MOMENTA = (0.001, 0.1, 0.5, 0.9, 1.0, None)
CASES = list(itertools.product(TYPES, SCALES, MOMENTA))

OPERATORS = torch.ops.anynorm


def statistics(dtype: torch.dtype, scale: float) -> tuple[list[Tensor], list[Tensor]]:
    """Return the running mean and variance, and those of a batch in float64."""
    generator = torch.Generator().manual_seed(0)
    mean = scale * torch.randn(16, generator=generator, dtype=torch.float64)
    var = scale**2 * (0.5 + torch.rand(16, generator=generator, dtype=torch.float64))
    return [torch.zeros(16, dtype=dtype), torch.ones(16, dtype=dtype)], [mean, var]


def check(found: list[Tensor], before: list[Tensor], batch: list[Tensor], weight: float) -> None:
    for after, start, end in zip(found, before, batch, strict=True):
        one, other = (1 - weight) * start.double(), weight * end
        info = torch.finfo(after.dtype)
        # Rounded are the batch's statistic, the weight, the step and the result.
        bound = 4 * info.eps * (one.abs() + other.abs()) + info.smallest_normal * info.eps
        assert bool(((after.double() - (one + other)).abs() <= bound).all())


@pytest.mark.parametrize("operator", ["track_", "track_formula_"])
@pytest.mark.parametrize(("dtype", "scale", "momentum"), CASES)
def test_the_operators(
    dtype: torch.dtype, scale: float, momentum: float | None, operator: str
) -> None:
    own, batch = statistics(dtype, scale)
    for seen in range(1, 4):
        before = [statistic.clone() for statistic in own]
        count = torch.tensor(seen - 1)
        getattr(OPERATORS, operator)(*own, count, *batch, momentum, 1.0)
        assert count == seen
        check(own, before, batch, 1 / seen if momentum is None else momentum)


@pytest.mark.parametrize(("dtype", "scale", "momentum"), CASES)
def test_the_short_way_of_a_finite_batch(
    dtype: torch.dtype, scale: float, momentum: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anynorm.ops.running._OWN", False)
    own, batch = statistics(dtype, scale)
    before = [statistic.clone() for statistic in own]
    Running(*own, torch.tensor(0), momentum).track(*batch)
    check(own, before, batch, 1.0 if momentum is None else momentum)


@pytest.mark.parametrize("kind", ["batch", "l1-batch", "ghost"])
@pytest.mark.parametrize("momentum", [1.0, None])
def test_the_first_batch_replaces_what_a_fresh_layer_holds(
    kind: str, momentum: float | None
) -> None:
    options = {"size": 8} if kind == "ghost" else {}
    layer = anynorm.create(kind, 4, momentum=momentum, **options)
    x = 1e-3 * torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    layer(x)
    again = anynorm.create(kind, 4, momentum=momentum, **options)
    again.running_var.fill_(1e-6)
    again.running_mean.fill_(1e-3)
    again(x)
    torch.testing.assert_close(layer.running_var, again.running_var, rtol=1e-6, atol=0)
    torch.testing.assert_close(layer.running_mean, again.running_mean, rtol=1e-6, atol=0)
