"""The zoo builds, runs and learns; the whole of it is tried by the slow tests."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.zoo import (
    ARCHITECTURES,
    Classifier,
    batch_norms,
    build,
    digits_batches,
    digits_labels,
    find,
    logits,
    train,
    warmed,
)
from torch import nn
from torch.utils._pytree import tree_leaves

from anynorm.errors import AnynormError
from anynorm.study.data import load, seeded

NAMES = [row.name for row in ARCHITECTURES]
CLASSIFIERS = [row.name for row in ARCHITECTURES if row.classifies]
# Batch norm before and after convolutions, frozen, in one dimension; a head of ours; none at all.
HANDFUL = ["resnet-basic", "rt-detr-resnet", "detr", "wav2vec2-conformer", "vit"]
# Loops whose number of turns depends on the values: torch.export refuses them.
NOT_EXPORTED = {"slanet", "fastspeech2-conformer"}
PARAMETERS = 1_500_000

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def batch(name, n=2):
    with seeded(1):
        return find(name).example(n)


@torch.no_grad()
def outputs(model, inputs):
    """The numbers that a model returns, as a list of tensors."""
    return [leaf for leaf in tree_leaves(model(**inputs)) if isinstance(leaf, torch.Tensor)]


def check_runs(name):
    """Two forwards agree, are finite and depend on the input."""
    model = warmed(build(name), find(name).example)
    assert sum(p.numel() for p in model.parameters()) < PARAMETERS
    inputs = batch(name)
    first = outputs(model, inputs)
    torch.testing.assert_close(outputs(model, inputs), first, rtol=0, atol=0)
    assert all(bool(tensor.isfinite().all()) for tensor in first)
    others = outputs(model, {keyword: value.flip(0) for keyword, value in inputs.items()})
    assert any(a.shape != b.shape or not a.equal(b) for a, b in zip(first, others, strict=True))


def check_statistics(name):
    """No running statistic is that of a fresh layer, nor lost below ε."""
    layers = batch_norms(warmed(build(name), find(name).example))
    for layer in layers.values():
        assert not layer.running_mean.eq(0).all()
        assert not layer.running_var.eq(1).any()
        assert layer.running_var.median() > getattr(layer, "eps", 1e-5)


def check_fault(name):
    """Those that ship with TensorFlow's momentum, and no others, say so."""
    momenta = [getattr(layer, "momentum", None) or 0 for layer in batch_norms(build(name)).values()]
    assert any(momentum > 0.5 for momentum in momenta) == ("momentum" in find(name).fault)


def exported(name):
    model = build(name).eval()
    inputs = batch(name)
    program = torch.export.export(model, (), inputs)
    return outputs(model, inputs), outputs(program.module(), inputs)


def test_enough_architectures():
    assert len(set(NAMES)) == len(NAMES) >= 34
    assert len(CLASSIFIERS) >= 24


def test_importing_the_zoo_does_not_import_transformers():
    code = "import benchmarks.zoo, sys; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_unknown_name():
    with pytest.raises(AnynormError, match="resnet-basic"):
        build("resnet-basics")


@pytest.mark.parametrize("name", HANDFUL)
def test_runs(name):
    check_runs(name)
    check_statistics(name)


def test_building_is_seeded_and_restores_the_random_state():
    before = torch.get_rng_state()
    one, again, other = (build("resnet-basic", seed).state_dict() for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert any(not one[key].equal(other[key]) for key in one)


def test_warmed_statistics_are_means_over_the_batches():
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=0.2))
    seen = []

    def example(n):
        seen.append(5 + 2 * torch.randn(n, 3))
        return {"input": seen[-1]}

    layer = warmed(model.requires_grad_(False), example, steps=4)[0]
    wanted = torch.stack([x.mean(0) for x in seen]).mean(0)
    torch.testing.assert_close(layer.running_mean, wanted)
    assert layer.momentum == 0.2
    assert not layer.training
    assert 0.5 <= float(layer.weight.min()) < float(layer.weight.max()) <= 1.5
    assert -0.3 <= float(layer.bias.min()) < float(layer.bias.max()) <= 0.3


def test_classifier_pools_space_and_tokens():
    class Backbone(nn.Module):
        def forward(self, pixel_values):
            self.last_hidden_state = pixel_values
            return self

    head = Classifier(Backbone(), 3, 7)
    x = torch.randn(2, 3, 4, 4)
    expected = head.head(x.mean((2, 3)))
    torch.testing.assert_close(logits(head(pixel_values=x)), expected)
    torch.testing.assert_close(head(pixel_values=x.flatten(2).mT), expected)


def test_digits_in_order():
    batches, labels = digits_batches(500), digits_labels(500)
    assert [len(part["pixel_values"]) for part in batches] == [500, 500, 297]
    assert batches[0]["pixel_values"].shape == (500, 3, 32, 32)
    assert torch.cat(labels).equal(load("digits").train_y)


def test_learns_digits():
    model = build("resnet-bottleneck")
    assert train(model, epochs=2) > 0.5  # of ten classes
    assert not model.training


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_runs(name):
    check_runs(name)
    check_fault(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The tensor attribute:UserWarning")  # LeViT caches its biases
@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_exported(name):
    if name in NOT_EXPORTED:
        with pytest.raises(RuntimeError, match="data-dependent"):
            exported(name)
    else:
        torch.testing.assert_close(*exported(name), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_learns(name):
    model = build(name)
    assert logits(model(**batch(name))).shape == (2, 10)
    assert train(model, epochs=find(name).epochs) > 0.9
