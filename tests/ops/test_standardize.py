"""The operator itself: opcheck, first and second derivatives, transforms, layouts, accuracy."""

import math

import pytest
import torch
import torch.testing._internal.common_utils

from anynorm.activations import ACTIVATIONS
from anynorm.ops import Affine, Epilogue, Statistic, View, formula, standardize

STATISTICS = {
    "std": Statistic([0, 2], True, True, 2.0, 1.0, 1e-5),
    "rms": Statistic([1, 2], False, False, 2.0, 1.0, 1e-5),
    "l1": Statistic([0, 2], True, True, 1.0, 1.25, 1e-5),
    "l3 about zero": Statistic([0, 2], True, False, 3.0, 1.0, 1e-5),
    "std, not centred": Statistic([0, 2], False, True, 2.0, 1.0, 1e-5),
    "linf": Statistic([0, 2], True, True, math.inf, 0.4, 1e-5),
}
OPERATORS = torch.ops.anynorm
# What follows γ and β, by what backward needs for it: nothing, bits, or the residual.
PHIS = ["identity", "relu", "silu"]


@pytest.fixture(params=STATISTICS, ids=str)
def statistic(request):
    return STATISTICS[request.param]


def tensors(dtype=torch.float64):
    """x, a residual, γ and β."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 5), (4, 3, 5), (1, 3, 1), (1, 3, 1)]
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def call(x, residual, weight, bias, statistic, phi):
    return standardize(x, Affine(weight, bias), statistic, Epilogue(residual, phi))[0]


@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_opcheck(statistic, affine, added, phi):
    x, residual, weight, bias = tensors()
    weight, bias = (weight, bias) if affine else (None, None)
    residual = residual if added else None
    forward = (x, residual, weight, bias, *statistic, phi)
    torch.library.opcheck(OPERATORS.standardize.default, forward)
    _, mean, square, sign_mask = OPERATORS.standardize(*forward)
    assert sign_mask.numel() == ((60 + 7) // 8 + 8 if added and phi == "relu" else 0)
    saved = residual if phi == "silu" else None
    backward = (
        torch.randn_like(x),
        x,
        saved,
        sign_mask,
        mean,
        square,
        weight,
        bias,
        *statistic,
        phi,
    )
    torch.library.opcheck(OPERATORS.standardize_backward.default, backward)


@pytest.mark.parametrize("phi", PHIS)
def test_the_formula_is_an_operator_too(statistic, phi):
    forward = [t.detach() for t in tensors()] + [*statistic, phi]
    torch.library.opcheck(OPERATORS.standardize_formula.default, tuple(forward))
    y, mean, square, sign_mask = OPERATORS.standardize_formula(*forward)
    x, residual, weight, bias, *rest = forward
    saved = residual if phi == "silu" else None
    backward = (torch.randn_like(x), x, saved, sign_mask, mean, square, weight, bias, *rest)
    torch.library.opcheck(OPERATORS.standardize_backward_formula.default, backward)
    torch.testing.assert_close(OPERATORS.standardize(*forward)[0], y)
    torch.testing.assert_close(
        OPERATORS.standardize_backward(*backward), OPERATORS.standardize_backward_formula(*backward)
    )


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_first_and_second_derivatives(statistic, phi):
    def function(x, weight, bias):
        return call(x, None, weight, bias, statistic, phi)

    x, _, weight, bias = tensors()
    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias))


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_derivatives_with_a_residual(statistic, phi):
    def function(*inputs):
        return call(*inputs, statistic, phi)

    assert torch.autograd.gradcheck(function, tensors())
    assert torch.autograd.gradgradcheck(function, tensors())


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_the_residual_is_added_before_phi(statistic, phi):
    x, residual, weight, bias = tensors()
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    fused = call(x, residual, weight, bias, statistic, phi)
    plain = ACTIVATIONS[phi].forward(call(x, None, weight, bias, statistic, "identity") + residual)
    results = (
        (y, *torch.autograd.grad(y, (x, residual, weight, bias), dy)) for y in (fused, plain)
    )
    torch.testing.assert_close(*results)


def test_statistics_are_float64_and_not_differentiable(statistic):
    x, _, weight, bias = tensors(torch.float32)
    y, mean, square = standardize(x, Affine(weight, bias), statistic)
    assert y.requires_grad
    for value in (mean, square):
        assert not value.requires_grad
        assert value.dtype == torch.float64


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("phi", PHIS)
def test_vmap_and_grad_compose(statistic, phi, added):
    _, residual, weight, bias = tensors()
    batch = torch.randn(6, 4, 3, 5, dtype=torch.float64)

    def function(weight, x):
        return call(x, residual if added else None, weight, bias, statistic, phi).pow(3).sum()

    gradient = torch.func.grad(function)
    together = torch.vmap(gradient, (None, 0))(weight, batch)
    torch.testing.assert_close(together, torch.stack([gradient(weight, x) for x in batch]))


@pytest.mark.parametrize("phi", PHIS)
def test_the_operators_have_vmap_rules_with_a_residual(statistic, phi):
    _, residual, weight, bias = (t.detach() for t in tensors())
    batch = torch.randn(6, 5, 3, 4, dtype=torch.float64)

    def both(x):
        x = x.permute(2, 1, 0)
        rest = (weight, bias, *statistic, phi)
        y, mean, square, sign_mask = OPERATORS.standardize(x, residual, *rest)
        saved = residual if phi == "silu" else None
        return y, OPERATORS.standardize_backward(y, x, saved, sign_mask, mean, square, *rest)

    each = [both(x) for x in batch]
    stacked = torch.utils._pytree.tree_map(lambda *t: torch.stack(t), *each)
    torch.testing.assert_close(torch.vmap(both)(batch), stacked)


@pytest.mark.parametrize("phi", PHIS)
def test_vmap_compiles_in_one_graph(statistic, phi):
    _, residual, weight, bias = (t.detach() for t in tensors())
    batch = torch.randn(6, 4, 3, 5, dtype=torch.float64)

    def function(batch):
        return torch.vmap(lambda x: call(x, residual, weight, bias, statistic, phi))(batch)

    run = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(batch), function(batch))


@pytest.mark.parametrize("phi", PHIS)
def test_many_cotangents_at_once(statistic, phi):
    inputs = tensors()
    y = call(*inputs, statistic, phi)
    many = torch.randn(3, *y.shape, dtype=y.dtype)
    together = torch.autograd.grad(y, inputs, many, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, inputs, dy, retain_graph=True) for dy in many]
    torch.testing.assert_close(together, tuple(map(torch.stack, zip(*each, strict=True))))


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
@pytest.mark.parametrize("phi", ["gelu", "relu"])
def test_strides_do_not_matter(statistic, phi, make):
    x, residual, weight, bias = (t.detach() for t in tensors())
    results = []
    for odd in (make(x), make(x).contiguous()):
        odd.requires_grad_()
        added = residual[: len(odd)].clone().requires_grad_()
        y = call(odd, added, weight, bias, statistic, phi)
        assert y.stride() == torch.empty_like(odd).stride()
        dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        results.append((y, *torch.autograd.grad(y, (odd, added), dy[: len(odd)])))
    # A few roundings of float64, 1e-16 each, of sums of twenty values of order one.
    torch.testing.assert_close(*results, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("own", [True, False], ids=["of its own type", "of float32"])
def test_sixteen_bits_are_widened(statistic, dtype, own):
    x, residual, weight, bias = (t.detach() for t in tensors(torch.float32))
    x, residual = x.to(dtype), residual.to(dtype)
    weight, bias = (weight.to(dtype), bias.to(dtype)) if own else (weight, bias)
    y = call(x, residual, weight, bias, statistic, "relu")
    wide = [t.double() for t in (x, residual, weight, bias)]
    expected = call(*wide, statistic, "relu")
    assert y.dtype == dtype
    # The output is rounded once, by half a unit of its last digit; float32's are far smaller.
    precision = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=0.51 * precision, atol=0.01 * precision)


def test_the_largest_deviation_shares_its_gradient_between_ties():
    x = torch.tensor([[1.0, -1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    statistic = Statistic([1], False, False, math.inf, 1.0, 0.0)
    y, _, square = standardize(x, Affine(), statistic)
    assert square.item() == 1
    y.backward(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    # y₃ = x₃ / max|x|, so ∂y₃/∂max = −½, half of it to each tie with its sign
    torch.testing.assert_close(x.grad, torch.tensor([[-0.25, 0.25, 1.0]], dtype=torch.float64))


def test_a_constant_input_has_finite_gradients(statistic):
    x = torch.full((4, 3, 5), 2.0, dtype=torch.float64, requires_grad=True)
    standardize(x, Affine(), statistic)[0].backward(torch.randn(4, 3, 5).double())
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("phi", PHIS)
def test_memory_of_the_output_is_written_in_full(statistic, phi):
    """With poisoned fresh memory, every value of outputs and gradients is still the formula's."""
    with torch.testing._internal.common_utils.DeterministicGuard(
        True, fill_uninitialized_memory=True
    ):
        x, residual, weight, bias = tensors()
        y = call(x, residual, weight, bias, statistic, phi)
        y.backward(torch.randn_like(y))
    for value in (y, x.grad, residual.grad, weight.grad, bias.grad):
        assert value.isfinite().all()
    expected, *_ = formula.forward(x, Affine(weight, bias), statistic, Epilogue(residual, phi))
    torch.testing.assert_close(y, expected)


def test_a_view_is_one_of_all_tensors():
    generator = torch.Generator().manual_seed(0)
    x, residual, dy = torch.randn(3, 5, 6, 4, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, residual, weight, bias)]
    split, beside = (5, 2, 3, 4), (1, 2, 3, 1)
    statistic = Statistic([2, 3], True, True, 2.0, 1.0, 1e-5)

    def inside(x, residual, weight, bias):
        epilogue, view = Epilogue(residual, "silu"), View(split, beside)
        return standardize(x, Affine(weight, bias), statistic, epilogue, view)[0]

    def outside(x, residual, weight, bias):
        affine, epilogue = Affine(weight.view(beside), bias.view(beside)), residual.view(split)
        y = standardize(x.view(split), affine, statistic, Epilogue(epilogue, "silu"))[0]
        return y.view(x.shape)

    results = [
        (y, *torch.autograd.grad(y, leaves, dy)) for y in (inside(*leaves), outside(*leaves))
    ]
    torch.testing.assert_close(*results)
    assert torch.autograd.gradgradcheck(inside, leaves)


FAR = {
    "rows": ((64, 48), None, [1]),
    "columns": ((256, 16), None, [0]),
    "batch": ((8, 6, 12, 12), None, [0, 2, 3]),
    "batch, channels last": ((8, 6, 12, 12), torch.channels_last, [0, 2, 3]),
    "instance": ((8, 6, 12, 12), None, [2, 3]),
    "instance, channels last": ((8, 6, 12, 12), torch.channels_last, [2, 3]),
    "group": ((8, 6, 12, 12), None, [2, 3, 4]),
    "group, channels last": ((8, 6, 12, 12), torch.channels_last, [2, 3, 4]),
}


@pytest.mark.parametrize("operator", ["standardize", "standardize_formula"])
@pytest.mark.parametrize("layout", FAR)
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_a_mean_far_from_zero_costs_no_digits(layout, p, operator):
    shape, memory_format, dims = FAR[layout]
    x = 1e4 + torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=memory_format) if memory_format else x
    view = x.view(8, 2, 3, 12, 12) if "group" in layout else x
    rest = (None, None, None, dims, True, True, p, 1.0, 1e-5, "identity")
    y, mean, _, _ = getattr(OPERATORS, operator)(view, *rest)
    expected, true_mean, _, _ = OPERATORS.standardize_formula(view.double(), *rest)
    # x − μ is exact but for μ's own error, 1e-7 of a deviation; σ and two products add 3e-7.
    assert (y - expected).square().mean().sqrt() <= 1e-6
    torch.testing.assert_close(mean, true_mean, rtol=0, atol=1e-6)


def test_gradients_far_from_zero_are_those_near_it():
    x = torch.randn(8, 6, 12, 12, generator=torch.Generator().manual_seed(0))
    x = (1e4 + x).requires_grad_()  # now of the digits that it has there
    near = (x.detach() - 1e4).requires_grad_()
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    statistic = Statistic([0, 2, 3], True, True, 2.0, 1.0, 1e-5)
    gradients = [
        torch.autograd.grad(standardize(t, Affine(), statistic)[0], t, dy)[0] for t in (x, near)
    ]
    # Sums of 1152 products, rounded by float32's 6e-8 each, about one half of them up.
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=5e-6)
