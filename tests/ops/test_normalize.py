"""Given statistics: opcheck, derivatives, transforms, and agreement with those of the input."""

import pytest
import torch

from anynorm.activations import ACTIVATIONS
from anynorm.ops import Affine, Epilogue, Statistic, normalize, standardize

OPERATORS = torch.ops.anynorm
PHIS = ["identity", "relu", "silu"]


def tensors(dtype=torch.float64):
    """x, a residual, μ, s², γ and β."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 5), (4, 3, 5), *[(1, 3, 1)] * 4]
    values = [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]
    values[3].abs_()
    for index in (0, 1, 4, 5):
        values[index].requires_grad_()
    return values


def call(x, residual, mean, square, weight, bias, phi):
    return normalize(x, mean, square, Affine(weight, bias), 1e-5, Epilogue(residual, phi))


@pytest.mark.parametrize("formula", ["", "_formula"])
@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_opcheck(affine, added, phi, formula):
    x, residual, mean, square, weight, bias = tensors()
    if formula:  # has no derivative of its own
        x, residual, weight, bias = (t.detach() for t in (x, residual, weight, bias))
    weight, bias = (weight, bias) if affine else (None, None)
    residual = residual if added else None
    forward = (x, residual, mean, square, weight, bias, 1e-5, phi)
    operator = getattr(OPERATORS, f"normalize{formula}").default
    torch.library.opcheck(operator, forward)
    sign_mask = operator(*forward)[1]
    saved = residual if phi == "silu" else None
    backward = (torch.randn_like(x), x, saved, sign_mask, mean, square, weight, bias, 1e-5, phi)
    torch.library.opcheck(getattr(OPERATORS, f"normalize_backward{formula}").default, backward)


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_first_and_second_derivatives(phi, added):
    x, residual, mean, square, weight, bias = tensors()

    def function(x, weight, bias, residual=None):
        return call(x, residual, mean, square, weight, bias, phi)

    inputs = (x, weight, bias, residual) if added else (x, weight, bias)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_the_inputs_own_statistics_give_the_same_output(phi):
    x, residual, _, _, weight, bias = tensors()
    statistic = Statistic([0, 2], True, True, 2.0, 1.0, 1e-5)
    affine, epilogue = Affine(weight, bias), Epilogue(residual, phi)
    y, mean, square = standardize(x, affine, statistic, epilogue)
    torch.testing.assert_close(normalize(x, mean, square, affine, 1e-5, epilogue), y)


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("phi", PHIS)
def test_vmap_and_grad_compose(phi, added):
    _, residual, mean, square, weight, bias = tensors()
    batch = torch.randn(6, 4, 3, 5, dtype=torch.float64)

    def function(weight, x):
        return call(x, residual if added else None, mean, square, weight, bias, phi).pow(3).sum()

    gradient = torch.func.grad(function)
    together = torch.vmap(gradient, (None, 0))(weight, batch)
    torch.testing.assert_close(together, torch.stack([gradient(weight, x) for x in batch]))


@pytest.mark.parametrize("phi", PHIS)
def test_many_cotangents_at_once(phi):
    values = tensors()
    inputs = [value for value in values if value.requires_grad]
    y = call(*values, phi)
    many = torch.randn(3, *y.shape, dtype=y.dtype)
    together = torch.autograd.grad(y, inputs, many, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, inputs, dy, retain_graph=True) for dy in many]
    torch.testing.assert_close(together, tuple(map(torch.stack, zip(*each, strict=True))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("statistics", [torch.float32, torch.float64])
def test_statistics_are_of_any_type(dtype, statistics):
    x, residual, mean, square, weight, bias = (t.detach() for t in tensors(torch.float32))
    x, residual = x.to(dtype), residual.to(dtype)
    y = call(x, residual, mean.to(statistics), square.to(statistics), weight, bias, "relu")
    wide = [t.double() for t in (x, residual, mean, square, weight, bias)]
    assert y.dtype == dtype
    # The output is rounded once, by half a unit of its last digit; float32's are far smaller.
    precision = torch.finfo(dtype).eps
    torch.testing.assert_close(
        y.double(), call(*wide, "relu"), rtol=0.51 * precision, atol=0.01 * precision
    )


@pytest.mark.parametrize("phi", PHIS)
def test_an_empty_batch(phi):
    x, residual, *others = tensors()
    y = call(x[:0], residual[:0], *others, phi)
    assert y.shape == (0, 3, 5)
    (gradient,) = torch.autograd.grad(y.sum(), others[2])
    assert torch.equal(gradient, torch.zeros_like(gradient))
