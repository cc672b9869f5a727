from __future__ import annotations

import math

import numpy
import pytest
import torch

from anynorm.reference.standardize import Standardized, power_mean, power_mean_slope
from anynorm.spec import SCALES, Spec


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_power_mean_is_torch_norm_less_the_count(p: float) -> None:
    size = numpy.abs(numpy.random.default_rng(0).standard_normal((3, 8)))
    leaf = torch.tensor(size, requires_grad=True)
    count = 1.0 if math.isinf(p) else 8 ** (1 / p)
    wanted = torch.linalg.vector_norm(leaf, p, dim=1, keepdim=True) / count
    slope = torch.autograd.grad(wanted.sum(), leaf)[0]
    numpy.testing.assert_allclose(power_mean(size, p, (1,)), wanted.detach(), rtol=1e-13)
    numpy.testing.assert_allclose(power_mean_slope(size, p, (1,)), slope, rtol=1e-12)


def test_values_equally_large_share_the_gradient() -> None:
    slope = power_mean_slope(numpy.asarray([2.0, 1.0, 2.0, 0.0]), math.inf, (0,))
    assert slope.tolist() == [0.5, 0.0, 0.5, 0.0]


@pytest.mark.parametrize("name", ["std", "rms", "l1", "linf", "lp", "norm"])
def test_equal_values_have_finite_gradients(name: str) -> None:
    spec = Spec.of("[n]", scale=name)
    core = Standardized(numpy.zeros(5), spec, (0,), eps=1e-5)
    dx = core.backward(numpy.arange(5.0))
    wanted = (numpy.arange(5.0) - 2.0) / math.sqrt(1e-5)  # σ = √ε does not depend on x here
    numpy.testing.assert_allclose(dx, wanted, rtol=1e-12)
    assert spec.scale == SCALES[name]
