"""Every catalogue entry against torch's float64 autograd, and under a strict array library."""

from __future__ import annotations

import zlib
from typing import Any

import array_api_strict
import numpy
import pytest
import torch
from entries import PHI, TWINS, affine

from anynorm import reference
from anynorm.catalogue import catalogue

# Both sides round at 1.1e-16; sums of up to 200 values and a division by σ ≥ 0.1 cost less than a
# factor of 1e3 on top, and the eigenvectors a factor of the inverse relative gap of eigenvalues.
TOLERANCE = 1e-12

CASES = [(name, shape) for name, twin in TWINS.items() for shape in twin.shapes]


def error(found: Any, wanted: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    wanted = wanted.detach().numpy()
    assert found.shape == wanted.shape
    return float(numpy.abs(found - wanted).max() / numpy.abs(wanted).max())


def sample(name: str, shape: tuple[int, ...]) -> tuple[numpy.ndarray, numpy.random.Generator]:
    """Values whose channels differ in mean and scale, so that eigenvalues are well separated."""
    random = numpy.random.default_rng(zlib.crc32(f"{name}{shape}".encode()))
    x = random.standard_normal(shape)
    per_channel = (1, shape[1], *(1,) * (len(shape) - 2))
    spread = 1.5 ** numpy.arange(shape[1]).reshape(per_channel)
    return x * spread + random.standard_normal(per_channel), random


def build(name: str, shape: tuple[int, ...], activation: str | None) -> Any:
    twin = TWINS[name]
    channels = twin.channels(shape)
    return reference.create(name, channels, activation=activation, **twin.options)


def errors(name: str, shape: tuple[int, ...], activation: str | None) -> dict[str, float]:
    """Compare forward, dx, dγ and dβ with the twin, for a random γ, β and cotangent."""
    x, random = sample(name, shape)
    layer, twin = build(name, shape, activation), TWINS[name]
    layer.gamma, layer.beta = (
        random.standard_normal(start.shape) for start in (layer.gamma, layer.beta)
    )
    dy = random.standard_normal(shape)
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, layer.gamma, layer.beta)]
    y = PHI[activation](
        affine(twin.normalize(leaves[0]), twin.gain(leaves[1]), leaves[2], twin.first)
    )
    gradients = torch.autograd.grad(y, leaves, torch.tensor(dy))
    found = (layer.forward(x), layer.backward(dy), layer.dgamma, layer.dbeta)
    names = ("y", "dx", "dgamma", "dbeta")
    return {k: error(f, w) for k, f, w in zip(names, found, (y, *gradients), strict=True)}


def test_every_entry_has_a_twin() -> None:
    assert {*TWINS, "cosine"} == set(catalogue)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_agrees_with_autograd(name: str, shape: tuple[int, ...], activation: str | None) -> None:
    worst = errors(name, shape, activation)
    assert max(worst.values()) < TOLERANCE, worst


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_strict_array_library(name: str, shape: tuple[int, ...]) -> None:
    x, random = sample(name, shape)
    dy = random.standard_normal(shape)
    plain, strict = build(name, shape, "gelu"), build(name, shape, "gelu")
    wanted = plain.forward(x), plain.backward(dy), plain.dgamma, plain.forward(x, training=False)
    found = (
        strict.forward(array_api_strict.asarray(x)),
        strict.backward(array_api_strict.asarray(dy)),
        strict.dgamma,
        strict.forward(array_api_strict.asarray(x), training=False),
    )
    for f, w in zip(found, wanted, strict=True):
        assert f.__array_namespace__() is array_api_strict
        numpy.testing.assert_allclose(numpy.asarray(f), w, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", [name for name, row in catalogue.items() if row.spec.uses_batch])
def test_evaluation_goes_back_through_x_alone(name: str) -> None:
    """In evaluation z is linear in x: with γ = 1, <dx, v> must equal <dy, z(x + v) − z(x)>."""
    shape = TWINS[name].shapes[1]
    x, random = sample(name, shape)
    v, dy = random.standard_normal(shape), random.standard_normal(shape)
    layer = build(name, shape, None)
    layer.forward(x)
    layer.eval()
    difference = layer.forward(x + v) - layer.forward(x)
    slope = (layer.backward(dy) * v).sum()
    assert abs(slope - (dy * difference).sum()) < 1e-12 * numpy.abs(dy * difference).sum()
