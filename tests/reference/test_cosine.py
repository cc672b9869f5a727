from __future__ import annotations

import array_api_strict
import numpy
import pytest
import torch

from anynorm import reference
from anynorm.errors import AnynormError, ShapeError


@pytest.mark.parametrize("shape", [(6,), (5, 6), (4, 3, 6)])
@pytest.mark.parametrize("eps", [1e-12, 0.1])
def test_agrees_with_autograd(shape: tuple[int, ...], eps: float) -> None:
    random = numpy.random.default_rng(0)
    layer = reference.CosineLinear(6, 4, eps=eps)
    layer.gamma, layer.beta = random.standard_normal(4), random.standard_normal(4)
    x, dy = random.standard_normal(shape), random.standard_normal((*shape[:-1], 4))
    values = (x, layer.weight, layer.gamma, layer.beta)
    leaves = [torch.tensor(v, requires_grad=True) for v in values]
    rays, units = (v / (v.square().sum(-1, keepdim=True) + eps).sqrt() for v in leaves[:2])
    y = leaves[2] * (rays @ units.T) + leaves[3]
    found = layer.forward(x), layer.backward(dy), layer.dweight, layer.dgamma, layer.dbeta
    wanted = y.detach(), *torch.autograd.grad(y, leaves, torch.tensor(dy))
    for f, w in zip(found, wanted, strict=True):
        assert f.shape == w.shape
        assert numpy.abs(f - w.numpy()).max() < 1e-12 * w.abs().max()


def test_strict_array_library() -> None:
    x = numpy.random.default_rng(0).standard_normal((5, 6))
    strict, plain = reference.CosineLinear(6, 4), reference.CosineLinear(6, 4)
    y = strict.forward(array_api_strict.asarray(x))
    numpy.testing.assert_allclose(numpy.asarray(y), plain.forward(x), rtol=1e-14)
    dx = strict.backward(y)
    numpy.testing.assert_allclose(numpy.asarray(dx), plain.backward(numpy.asarray(y)), atol=1e-14)


def test_errors_state_the_rule() -> None:
    with pytest.raises(ShapeError, match=r"shape \(5, 3\) does not fit 6 inputs"):
        reference.CosineLinear(6, 4).forward(numpy.zeros((5, 3)))
    with pytest.raises(AnynormError, match=r"Call forward\(\) first"):
        reference.CosineLinear(6, 4).backward(numpy.zeros((5, 4)))
    with pytest.raises(AnynormError, match=r"outputs=10"):
        reference.create("cosine", 6)


def test_create_builds_it() -> None:
    assert reference.create("cosine", 6, outputs=4).weight.shape == (4, 6)
