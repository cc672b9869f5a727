from __future__ import annotations

import numpy
import pytest
import torch
from entries import PHI

from anynorm.reference import ACTIVATIONS

U = numpy.concatenate([numpy.linspace(-30.0, 30.0, 61), [-800.0, 800.0, 0.3, -0.3]])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_slope_agree_with_torch(name: str) -> None:
    leaf = torch.tensor(U, requires_grad=True)
    value = PHI[name](leaf)
    slope = torch.autograd.grad(value.sum(), leaf)[0]
    phi = ACTIVATIONS[name]
    # torch's gelu and sigmoid lose their tails to 1 + erf and 1 − σ: hence an absolute part
    numpy.testing.assert_allclose(phi.value(U), value.detach(), rtol=1e-13, atol=1e-14)
    numpy.testing.assert_allclose(phi.slope(U), slope, rtol=1e-13, atol=1e-14)
