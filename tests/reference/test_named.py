from __future__ import annotations

import numpy
import pytest
import torch

from anynorm import reference
from anynorm.errors import AnynormError, ShapeError, UnknownNameError

X = numpy.random.default_rng(0).standard_normal((3, 4, 2, 6))
TWINS = {
    "batch": (reference.BatchNorm(4), torch.nn.BatchNorm2d(4)),
    "instance": (reference.InstanceNorm(4), torch.nn.InstanceNorm2d(4)),
    "group": (reference.GroupNorm(2, 4), torch.nn.GroupNorm(2, 4)),
    "layer": (reference.LayerNorm(6), torch.nn.LayerNorm(6)),
    "layer (2, 6)": (reference.LayerNorm((2, 6)), torch.nn.LayerNorm((2, 6))),
    "layer (4, 2, 6)": (reference.LayerNorm((4, 2, 6)), torch.nn.LayerNorm((4, 2, 6))),
    "rms": (reference.RMSNorm(6), torch.nn.RMSNorm(6, eps=1e-5)),
    "rms (4, 2, 6)": (reference.RMSNorm((4, 2, 6)), torch.nn.RMSNorm((4, 2, 6), eps=1e-5)),
}


@pytest.mark.parametrize("name", TWINS)
def test_named_class_is_torchs(name: str) -> None:
    layer, twin = TWINS[name]
    x = torch.tensor(X, requires_grad=True)
    y, dy = twin.double()(x), torch.tensor(X).flip(0)
    dx = torch.autograd.grad(y, x, dy)[0]
    numpy.testing.assert_allclose(layer.forward(X), y.detach(), rtol=1e-12, atol=1e-13)
    numpy.testing.assert_allclose(layer.backward(dy), dx, rtol=1e-12, atol=1e-13)
    assert layer.gamma.shape == layer.dgamma.shape


def test_options_reach_the_normalizer() -> None:
    layer = reference.BatchNorm(4, eps=3.0, momentum=1.0, activation="relu")
    assert (layer.forward(X) >= 0).all()
    numpy.testing.assert_allclose(layer.running_mean, X.mean(axis=(0, 2, 3)))
    assert abs(layer.forward(X)).max() < 2.0


def test_errors_state_the_rule() -> None:
    with pytest.raises(UnknownNameError, match='Did you mean "batch"'):
        reference.create("bacth", 4)
    with pytest.raises(UnknownNameError, match="no option of 'batch' named 'groups'"):
        reference.create("batch", 4, groups=2)
    with pytest.raises(ShapeError, match="g=3 does not divide"):
        reference.GroupNorm(3, 4).forward(X)
    with pytest.raises(ShapeError, match="g=3 does not divide"):
        reference.create("zca", 4, groups=3)
    with pytest.raises(AnynormError, match="names 5 axes"):
        reference.LayerNorm((1, 2, 3, 4, 5))
