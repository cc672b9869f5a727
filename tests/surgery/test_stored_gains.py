"""The verbs on layers that do not store γ itself, and on batch renorm."""

import pytest
import torch
from torch import nn

import anynorm
from anynorm.spec import Learned, Renorm, Spec
from anynorm.surgery.gammas import Gammas
from anynorm.surgery.normalizers import normalizers

STORED = {
    "1 + w": Spec.of("[n] c [...]", learned=Learned(offset=1.0)),
    "one γ": Spec.of("[n] c [...]", learned=Learned("scalar")),
    "renorm": Spec.of("[n] c [...]", source=Renorm()),
}
EXAMPLE = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def model(spec):
    torch.manual_seed(0)
    norm = anynorm.Norm(spec, 4)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 3))
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    for _ in range(3):
        made(3 * EXAMPLE + 1)
    return made.eval()


@pytest.fixture(params=STORED)
def kind(request):
    return request.param


def test_folds_what_evaluation_computes(kind):
    made = model(STORED[kind])
    result = anynorm.fold(made, EXAMPLE)
    assert isinstance(result.model[1], nn.Identity)
    torch.testing.assert_close(result.model(EXAMPLE), made(EXAMPLE), rtol=1e-4, atol=1e-5)


def test_freezes_the_values_of_gamma(kind):
    made = model(STORED[kind])
    frozen = anynorm.freeze(made, EXAMPLE).model
    assert isinstance(frozen[1], anynorm.FrozenBatchNorm)
    torch.testing.assert_close(frozen.train()(EXAMPLE), made(EXAMPLE))
    kept = anynorm.freeze(made, EXAMPLE, affine=False)
    trainable = isinstance(kept.model[1], anynorm.FrozenBatchNorm)
    assert trainable == (kind == "renorm")
    assert trainable or "stores γ itself" in str(kept.receipt)


def test_converts_to_batch_norm_and_not_to_torch(kind):
    made = model(STORED[kind])
    batch = anynorm.convert(made, "batch", EXAMPLE).model
    assert isinstance(batch[1], anynorm.BatchNorm2d)
    if kind != "one γ":  # which has no place in batch norm
        torch.testing.assert_close(batch(EXAMPLE), made(EXAMPLE))
    receipt = anynorm.convert(made, "torch", EXAMPLE).receipt
    assert "torch.nn has no layer" in str(receipt)


def test_recalibrates(kind):
    made = anynorm.recalibrate(model(STORED[kind]), [EXAMPLE]).model
    x = made[0](EXAMPLE)
    torch.testing.assert_close(made[1].running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(made[1].running_var, x.var((0, 2, 3)))


def test_gamma_is_read_as_it_multiplies():
    made = model(STORED["1 + w"])
    (gammas,) = Gammas.of(made).values.values()
    assert gammas == pytest.approx((1 + made[1].weight).tolist())
    assert not Gammas.of(model(STORED["one γ"])).values
    with pytest.raises(anynorm.AnynormError, match=r"trainable γ.*stored as 1 \+ w"):
        anynorm.slim(made, torch.optim.SGD(made.parameters(), 0.1))


def test_prunes_where_gamma_is_a_parameter(kind):
    made = model(STORED[kind])
    if kind == "renorm":
        assert anynorm.prune(made, EXAMPLE, ratio=0.5).model[1].channels == (2,)
    else:
        reason = r"stored as 1 \+ w" if kind == "1 + w" else "one γ for all"
        with pytest.raises(anynorm.AnynormError, match=f"no channel that can be cut.*{reason}"):
            anynorm.prune(made, EXAMPLE, ratio=0.5)


def test_gamma_stays_the_same_between_layers_that_store_it_differently():
    layers = {name: anynorm.create(name, 4, eps=0.0) for name in ("rms", "gemma-rms")}
    x = torch.randn(3, 4)
    for there, other in (("rms", "gemma-rms"), ("gemma-rms", "rms")):
        nn.init.uniform_(layers[there].weight)
        before = nn.Sequential(layers[there])
        made = anynorm.convert(before, other, x, source=there, eps=0.0).model
        assert made[0].spec == layers[other].spec
        torch.testing.assert_close(made(x), layers[there](x))


def test_families_are_told_apart_with_and_without_gamma():
    for name in ("rms", "scale", "gemma-rms", "llama-rms", "batch", "batch-renorm", "pixel"):
        for options in ({}, {"affine": False}, {"bias": False}):
            (found,) = normalizers(anynorm.create(name, 4, **options))
            assert found.family == name


def test_a_fresh_layer_that_stores_zeros_has_no_dead_channels():
    made = nn.Sequential(nn.Linear(3, 4), anynorm.create("gemma-rms", 4))
    found = anynorm.doctor(made, [torch.randn(8, 3) for _ in range(3)])
    assert "dead" not in str(found)
