"""Normalizers of weights: what is special to them; the catalogue's tests cover the rest."""

import copy

import pytest
import torch

import anynorm


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_cosine_of_nothing_is_zero(dtype):
    layer = anynorm.CosineConv2d(3, 4, 3, bias=False).to(dtype)
    y = layer(torch.zeros(1, 3, 5, 5, dtype=dtype))
    assert torch.equal(y, torch.zeros_like(y))


def test_resetting_a_cosine_layer_resets_its_gain():
    layer = anynorm.CosineLinear(3, 4, device="meta").to_empty(device="cpu")
    layer.reset_parameters()
    torch.testing.assert_close(layer.gain, layer.weight.norm(dim=1) * 3**0.5)


@pytest.mark.parametrize("name", ["weight", "weight-standardization", "cosine"])
def test_a_layer_without_a_weight_yet_is_refused(name):
    with pytest.raises(anynorm.AnynormError, match="Call the layer once on an input first"):
        anynorm.normalized(torch.nn.LazyLinear(4), name)


def test_cosine_refuses_a_parametrized_layer():
    layer = anynorm.normalized(torch.nn.Linear(3, 4), "weight")
    with pytest.raises(anynorm.AnynormError, match="remove_parametrizations"):
        anynorm.normalized(layer, "cosine")


@pytest.mark.parametrize("name", ["weight", "weight-standardization", "cosine"])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "circular"])
def test_copies_and_states_of_grouped_convolutions(name, padding_mode):
    def build():
        conv = torch.nn.Conv2d(4, 8, 3, groups=2, padding=1, padding_mode=padding_mode)
        return anynorm.normalized(conv, name)

    layer, again, x = build(), build(), torch.randn(2, 4, 6, 6)
    again.load_state_dict(layer.state_dict())
    for other in (again, copy.deepcopy(layer)):
        torch.testing.assert_close(other(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
def test_weight_norm_of_every_layout_and_type(dtype, layout):
    """torch's operator serves some of them and the formula the others."""
    weight = 3 * torch.randn(6, 4, 3, 3, dtype=torch.float64)
    if layout == "channels_last":
        weight = weight.to(memory_format=torch.channels_last)
    elif layout == "transposed":
        weight = weight.transpose(2, 3)
    gain, cotangent = torch.rand(6, dtype=torch.float64), torch.randn_like(weight)
    spec = anynorm.catalogue["weight"].spec

    def found(kind):
        w, g = (t.to(kind).requires_grad_() for t in (weight, gain))
        y = anynorm.functional.normalize(w, spec, g, eps=0.0)
        y.backward(cotangent.to(kind))
        return y, w.grad, g.grad

    w, g = (t.to(dtype).double().requires_grad_() for t in (weight, gain))
    expected = g[:, None, None, None] * w / w.flatten(1).norm(dim=1)[:, None, None, None]
    expected.backward(cotangent.to(dtype).double())
    # A sum over the 36 weights of a unit, rounded once to the type.
    tolerance = 36 * torch.finfo(dtype).eps
    for ours, right in zip(found(dtype), (expected, w.grad, g.grad), strict=True):
        assert ours.stride() == right.stride()
        torch.testing.assert_close(ours.double(), right, rtol=tolerance, atol=tolerance)


def test_weight_norm_has_a_second_derivative():
    spec = anynorm.catalogue["weight"].spec
    w = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    g = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda w, g: anynorm.functional.normalize(w, spec, g, eps=0.0), (w, g)
    )


@pytest.mark.parametrize("name", ["weight", "weight-standardization"])
def test_a_normalized_weight_has_a_second_derivative(name):
    row = anynorm.catalogue[name]
    w = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    norm = anynorm.NormalizedWeight(row.spec, w, row.eps)
    gain = norm.weight.detach().clone().requires_grad_()
    call = torch.func.functional_call
    assert torch.autograd.gradgradcheck(lambda w, g: call(norm, {"weight": g}, w), (w, gain))


@pytest.mark.parametrize(
    "gain", [torch.rand(6, 2)[:, 0], torch.rand(1).expand(6)], ids=["gaps", "expanded"]
)
def test_weight_norm_with_a_gain_of_other_strides(gain):
    w, cotangent = torch.randn(6, 4), torch.randn(6, 4)
    spec = anynorm.catalogue["weight"].spec

    def found(g):
        g = g.detach().requires_grad_()
        y = anynorm.functional.normalize(w, spec, g, eps=0.0)
        return y, torch.autograd.grad(y, g, cotangent)[0]

    torch.testing.assert_close(found(gain), found(gain.contiguous()))


def test_weight_norm_refuses_a_gain_of_another_length():
    spec = anynorm.catalogue["weight"].spec
    with pytest.raises(RuntimeError):
        anynorm.functional.normalize(torch.randn(6, 4), spec, torch.rand(5), eps=0.0)


def test_a_normalized_weight_compiles_and_takes_transforms():
    w, cotangent = torch.randn(4, 6), torch.randn(4, 6)
    norm = anynorm.NormalizedWeight(anynorm.catalogue["weight"].spec, w, 0.0)

    def gradient(w):
        return torch.func.grad(lambda w: (norm(w) * cotangent).sum())(w)

    leaf = w.clone().requires_grad_()
    expected = norm(leaf)
    expected.backward(cotangent)
    torch.testing.assert_close(torch.compile(norm, fullgraph=True, backend="eager")(w), expected)
    torch.testing.assert_close(gradient(w), leaf.grad)
    torch.testing.assert_close(torch.func.vmap(gradient)(w[None])[0], leaf.grad)
