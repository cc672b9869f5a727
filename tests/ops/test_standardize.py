"""The operator itself: opcheck, first and second derivatives, transforms, layouts."""

import math

import pytest
import torch
import torch.testing._internal.common_utils

from anynorm.activations import ACTIVATIONS
from anynorm.ops import Statistic, formula, standardize

STATISTICS = {
    "std": Statistic([0, 2], True, True, 2.0, 1.0, 1e-5),
    "rms": Statistic([1, 2], False, False, 2.0, 1.0, 1e-5),
    "l1": Statistic([0, 2], True, True, 1.0, 1.25, 1e-5),
    "l3 about zero": Statistic([0, 2], True, False, 3.0, 1.0, 1e-5),
    "linf": Statistic([0, 2], True, True, math.inf, 0.4, 1e-5),
}
FORWARD = torch.ops.anynorm.standardize.default
BACKWARD = torch.ops.anynorm.standardize_backward.default


@pytest.fixture(params=STATISTICS, ids=str)
def statistic(request):
    return STATISTICS[request.param]


def tensors(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 5), (1, 3, 1), (1, 3, 1)]
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("affine", [True, False])
def test_opcheck(statistic, affine):
    x, weight, bias = tensors()
    weight, bias = (weight, bias) if affine else (None, None)
    torch.library.opcheck(FORWARD, (x, weight, bias, *statistic, "relu"))
    _, mean, square = standardize(x, weight, bias, statistic, "relu")
    dy = torch.randn_like(x)
    torch.library.opcheck(BACKWARD, (dy, x, mean, square, weight, bias, *statistic, "relu"))


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_first_and_second_derivatives(statistic, phi):
    def function(*args):
        return standardize(*args, statistic, phi)[0]

    assert torch.autograd.gradcheck(function, tensors())
    assert torch.autograd.gradgradcheck(function, tensors())


def test_the_statistics_are_not_differentiable(statistic):
    y, mean, square = standardize(*tensors(), statistic, "identity")
    assert y.requires_grad
    assert not mean.requires_grad
    assert not square.requires_grad


def test_vmap_and_grad_compose(statistic):
    _, weight, bias = tensors()
    batch = torch.randn(6, 4, 3, 5, dtype=torch.float64)

    def function(weight, x):
        return standardize(x, weight, bias, statistic, "silu")[0].pow(3).sum()

    gradient = torch.func.grad(function)
    together = torch.vmap(gradient, (None, 0))(weight, batch)
    torch.testing.assert_close(together, torch.stack([gradient(weight, x) for x in batch]))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.transpose(0, 2).contiguous().transpose(0, 2),
        lambda x: x[:, :, :1].expand_as(x),
        lambda x: torch.cat([x, x], 2)[:, :, ::2],
        lambda x: x[:0],
    ],
    ids=["permuted", "expanded", "strided", "empty"],
)
def test_strides_do_not_matter(statistic, make):
    x, weight, bias = tensors()
    odd = make(x.detach())
    y = standardize(odd, weight, bias, statistic, "gelu")[0]
    expected = standardize(odd.contiguous(), weight, bias, statistic, "gelu")[0]
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-14)
    assert y.stride() == torch.empty_like(odd).stride()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_take_their_statistics_in_float32(statistic, dtype):
    x, weight, bias = (t.detach() for t in tensors(torch.float32))
    y, mean, _ = standardize(x.to(dtype), weight, bias, statistic, "relu")
    expected, *_ = standardize(x.to(dtype).float(), weight, bias, statistic, "relu")
    assert y.dtype == dtype
    assert mean.dtype == torch.float32
    torch.testing.assert_close(y, expected.to(dtype), rtol=0, atol=0)


def test_the_largest_deviation_shares_its_gradient_between_ties():
    x = torch.tensor([[1.0, -1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    statistic = Statistic([1], False, False, math.inf, 1.0, 0.0)
    y, _, square = standardize(x, None, None, statistic, "identity")
    assert square.item() == 1
    y.backward(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    # y₃ = x₃ / max|x|, so ∂y₃/∂max = −½, half of it to each tie with its sign
    torch.testing.assert_close(x.grad, torch.tensor([[-0.25, 0.25, 1.0]], dtype=torch.float64))


def test_a_constant_input_has_finite_gradients(statistic):
    x = torch.full((4, 3, 5), 2.0, dtype=torch.float64, requires_grad=True)
    standardize(x, None, None, statistic, "identity")[0].backward(torch.randn(4, 3, 5).double())
    assert x.grad.isfinite().all()


def test_memory_of_the_output_is_written_in_full(statistic):
    """With poisoned fresh memory, every value of outputs and gradients is still the formula's."""
    with torch.testing._internal.common_utils.DeterministicGuard(
        True, fill_uninitialized_memory=True
    ):
        x, weight, bias = tensors()
        y = standardize(x, weight, bias, statistic, "relu")[0]
        y.backward(torch.randn_like(y))
    for value in (y, x.grad, weight.grad, bias.grad):
        assert value.isfinite().all()
    expected, _, _ = formula.forward(x, weight, bias, statistic, "relu")
    torch.testing.assert_close(y, expected)
