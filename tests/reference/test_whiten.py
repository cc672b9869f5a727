from __future__ import annotations

import numpy
import pytest

from anynorm import reference
from anynorm.reference.whiten import PCA, ZCA
from anynorm.spec import Scale, Spec

from .numeric import close, gradient

RANDOM = numpy.random.default_rng(0)
SKEW = RANDOM.standard_normal((3, 3))


@pytest.mark.parametrize("name", ["zca", "pca"])
def test_output_has_the_identity_as_covariance(name: str) -> None:
    x = RANDOM.standard_normal((50, 3)) @ SKEW + 4.0
    y = reference.create(name, 3, eps=0.0).forward(x)
    numpy.testing.assert_allclose(y.mean(axis=0), 0.0, atol=1e-13)
    numpy.testing.assert_allclose(numpy.cov(y.T, ddof=0), numpy.eye(3), atol=1e-12)


def test_covariance_about_zero_whitens_second_moments() -> None:
    x = RANDOM.standard_normal((50, 3)) @ SKEW + 4.0
    spec = Spec.of("[n] (g c)", scale=Scale(root="zca", origin="zero"), center=False)
    y = reference.Normalizer(spec, 3, sizes={"g": 1}, eps=0.0).forward(x)
    numpy.testing.assert_allclose(y.T @ y / 50, numpy.eye(3), atol=1e-12)


def test_zca_root_is_symmetric_and_pca_axes_point_to_their_largest_component() -> None:
    covariance = (SKEW @ SKEW.T)[None]
    zca, pca = ZCA(covariance).matrix[0], PCA(covariance).matrix[0]
    numpy.testing.assert_allclose(zca, zca.T, atol=1e-14)
    largest = numpy.take_along_axis(pca, numpy.abs(pca).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()
    lengths = numpy.linalg.norm(pca, axis=1)  # 1/√λ, so descending
    assert (numpy.diff(lengths) < 0).all()


def white(samples: int, channels: int) -> numpy.ndarray:
    """Samples whose covariance is the identity: all eigenvalues are equal."""
    x = RANDOM.standard_normal((samples, channels))
    q, _ = numpy.linalg.qr(x - x.mean(axis=0))
    return q * numpy.sqrt(samples)


@pytest.mark.parametrize("x", [white(8, 3), RANDOM.standard_normal((8, 3)) @ SKEW])
def test_zca_gradient_agrees_with_central_differences(x: numpy.ndarray) -> None:
    layer, dy = reference.create("zca", 3), RANDOM.standard_normal(x.shape)
    wanted = gradient(layer.forward, x, dy)
    layer.forward(x)
    assert close(layer.backward(dy), wanted)


def test_pca_gradient_agrees_with_central_differences() -> None:
    x = RANDOM.standard_normal((12, 3)) * [1.0, 3.0, 9.0]
    layer, dy = reference.create("pca", 3), RANDOM.standard_normal((12, 3))
    wanted = gradient(layer.forward, x, dy)
    layer.forward(x)
    assert close(layer.backward(dy), wanted)
