"""The rounding of model code, and where ε stands."""

import importlib

import load_benchmarks  # noqa: F401 - makes `benchmarks` importable
import pytest
import torch
from benchmarks.speed import compositions

import anynorm
from anynorm import functional as F
from anynorm import reference
from anynorm.errors import AnynormError, UnknownNameError
from anynorm.spec import Dialect, Learned, Spec

THEIRS = {"gemma-rms": compositions.Gemma, "llama-rms": compositions.Llama}


def both(name, dtype, wide=False):
    """Our layer and the model code's with the same γ, and an input with its cotangent."""
    made = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(64, 96, generator=made).to(dtype) for _ in range(2))
    layers = anynorm.create(name, 96), THEIRS[name](96)
    for layer in layers:
        with torch.no_grad():
            layer.weight += torch.randn(96, generator=made.manual_seed(1))
        layer.to(torch.float32 if wide else dtype)
    return layers, 3 * x, dy


def results(layer, x, dy):
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, (x, layer.weight), dy.to(y.dtype))]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", THEIRS)
def test_sixteen_bits_are_those_of_transformers_bit_for_bit(name, dtype):
    (ours, theirs), x, dy = both(name, dtype)
    for found, expected in zip(results(ours, x, dy), results(theirs, x, dy), strict=True):
        assert torch.equal(found, expected)
    plain = anynorm.create("rms", 96, eps=1e-6, dtype=torch.float32)
    plain.weight.data = ours.spec.learned.offset + ours.weight.data.float()
    assert not torch.equal(plain.to(dtype)(x), ours(x))  # the dialect tells


@pytest.mark.parametrize("name", THEIRS)
def test_float32_agrees_with_transformers(name):
    (ours, theirs), x, dy = both(name, torch.float32)
    torch.testing.assert_close(results(ours, x, dy), results(theirs, x, dy))


@pytest.mark.parametrize("name", THEIRS)
def test_a_wide_gamma_keeps_the_type_of_the_input(name):
    (ours, theirs), x, dy = both(name, torch.bfloat16, wide=True)
    y, dx, dweight = results(ours, x, dy)
    assert (y.dtype, dx.dtype, dweight.dtype) == (x.dtype, x.dtype, torch.float32)
    assert torch.equal(y, theirs(x).to(x.dtype))


@pytest.mark.parametrize("name", THEIRS)
def test_state_is_that_of_transformers(name):
    ours, theirs = anynorm.create(name, 4), THEIRS[name](4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_epsilon_is_the_least_norm():
    norm = anynorm.create("scale", 4, eps=0.5, dtype=torch.float64)
    assert norm.weight.tolist() == [2.0]  # √4
    x = torch.tensor([[3.0, 0, 4, 0], [0.3, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    x.requires_grad_()
    y = norm(x)
    torch.testing.assert_close(y[:2].detach(), 2 * x[:2].detach() / torch.tensor([[5.0], [0.5]]))
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    torch.testing.assert_close(dx[1:], torch.full_like(dx[1:], 4.0))  # σ is a constant
    sigma = F.scale_of(x, norm.spec, eps=0.5)
    assert sigma.flatten().tolist() == [5.0, 0.5, 0.5]


EPSILON = {"outside": lambda s: s + 0.5, "max": lambda s: s.clamp_min(0.5)}


@pytest.mark.parametrize("eps", EPSILON)
@pytest.mark.parametrize(("center", "scale"), [(True, "std"), (False, "rms"), (False, "norm")])
def test_epsilon_outside_and_at_least(eps, center, scale):
    spec = Spec.of("... [c]", center=center, scale=scale, dialect=Dialect(eps=eps))
    made = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(6, 5, generator=made, dtype=torch.float64) for _ in range(2))
    x = x * torch.logspace(-2, 1, 6, dtype=torch.float64)[:, None]
    x.requires_grad_()
    away = x - x.mean(-1, keepdim=True) if center else x
    s = away.square().sum(-1, keepdim=True) / (1 if scale == "norm" else 5)
    expected = away / EPSILON[eps](s.sqrt())
    y = F.normalize(x, spec, eps=0.5)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(F.scale_of(x, spec, eps=0.5), EPSILON[eps](s.sqrt()))
    given, right = (torch.autograd.grad(out, x, dy)[0] for out in (y, expected))
    torch.testing.assert_close(given, right)
    named = reference.Normalizer(spec, 5, eps=0.5)
    torch.testing.assert_close(torch.as_tensor(named.forward(x.detach().numpy())), y.detach())
    torch.testing.assert_close(torch.as_tensor(named.backward(dy.numpy())), given)


def test_epsilon_outside_has_a_gradient_at_zero():
    x = torch.zeros(2, 4, requires_grad=True)
    y = F.normalize(x, Spec.of("... [c]", dialect=Dialect(eps="outside")), eps=0.5)
    dy = torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0]])
    (dx,) = torch.autograd.grad(y, x, dy)
    torch.testing.assert_close(dx, 2 * (dy - dy.mean(-1, keepdim=True)))


def test_a_mask_within_a_statistic_needs_epsilon_inside():
    spec = Spec.of("n c [...]", dialect=Dialect(eps="outside"))
    x, mask = torch.randn(2, 3, 4), torch.arange(4) < torch.tensor([[2], [4]])
    with pytest.raises(AnynormError, match="only some of its values"):
        F.normalize(x, spec, mask=mask)
    each = F.normalize(x.mT, Spec.of("... [c]", dialect=spec.dialect), mask=mask[..., None])
    assert (each[0, 2:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("learned", [Learned(offset=1.0), Learned("scalar", offset=1.0)])
@pytest.mark.parametrize(
    ("pattern", "scale"),
    [("[n] c [...]", "std"), ("n (g [c]) [...]", "rms"), ("[n] (g c) [...]", "zca")],
)
def test_any_pattern_may_store_gamma_less_one(pattern, scale, learned, dtype):
    sizes = {"g": 2} if "g" in pattern else {}
    stored, plain = (
        anynorm.Norm(Spec.of(pattern, scale=scale, learned=what), 4, dtype=dtype, **sizes)
        for what in (learned, Learned())
    )
    with torch.no_grad():
        stored.weight.fill_(0.5)
        plain.weight.fill_(1.5)
    x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    for training in (True, False):
        y, expected = stored.train(training)(x), plain.train(training)(x)
        assert y.dtype == dtype
        precision = torch.finfo(dtype).eps  # each rounds once or twice
        torch.testing.assert_close(y, expected, rtol=2 * precision, atol=2 * precision)


def test_dialects_take_the_mean_as_well():
    spec = Spec.of("n (g [c]) [...]", dialect=Dialect(statistics="float32", cast="before"))
    x = 3 + torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = F.group_norm(x.float(), 2)
    found = F.normalize(x, spec, sizes={"g": 2})
    torch.testing.assert_close(found.float(), exact, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Spec.of("[n] c", dialect=Dialect(cast="before")), "of the values of each sample"),
        (lambda: Spec.of("[n] c", dialect=Dialect(eps="outside")), "of the values of each sample"),
        (lambda: Dialect(eps="under"), r"no Dialect\.eps named 'under'"),
        (lambda: Spec.of("o [i]", on="weight", learned=Learned("none")), "Leave learned= out"),
        (lambda: Learned("chanel"), 'Did you mean "channel"'),
        (lambda: anynorm.Norm(Spec.of("[n] c"), 4, scale="rms"), "scale= came with a Spec"),
    ],
)
def test_what_does_not_go_together(build, message):
    error = UnknownNameError if "named" in message or "Did" in message else AnynormError
    with pytest.raises(error, match=message):
        build()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "family"), [("gemma-rms", "Gemma"), ("llama-rms", "Llama")])
def test_transformers_itself(name, family, dtype):
    pytest.importorskip("transformers")
    at = f"transformers.models.{family.lower()}.modeling_{family.lower()}"
    theirs = getattr(importlib.import_module(at), f"{family}RMSNorm")(96).to(dtype)
    with torch.no_grad():
        theirs.weight += torch.randn(96)
    (ours, _), x, dy = both(name, dtype)
    ours.load_state_dict(theirs.state_dict())
    for found, expected in zip(results(ours, x, dy), results(theirs, x, dy), strict=True):
        assert torch.equal(found, expected)
