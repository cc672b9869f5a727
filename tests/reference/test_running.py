from __future__ import annotations

import math
from collections.abc import Callable

import numpy
import pytest
import torch
from numpy.testing import assert_allclose

from anynorm import reference
from anynorm.spec import Spec

TOLERANCE = {"rtol": 1e-12, "atol": 1e-14}


def batches(*shape: int, count: int = 3) -> list[numpy.ndarray]:
    random = numpy.random.default_rng(0)
    return [random.standard_normal(shape) * (k + 1) + k for k in range(count)]


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (4, 3, 2, 2), (2, 3, 2, 2, 2)])
def test_batch_norm_tracks_and_evaluates_as_torch(shape: tuple, momentum: float | None) -> None:
    kinds = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
    twin = kinds.get(len(shape), torch.nn.BatchNorm3d)(3, momentum=momentum).double()
    layer = reference.BatchNorm(3, momentum=momentum)
    for x in batches(*shape):
        layer.forward(x)
        twin(torch.tensor(x))
    assert_allclose(layer.running_mean, twin.running_mean, **TOLERANCE)
    assert_allclose(layer.running_var, twin.running_var, **TOLERANCE)
    assert layer.num_batches_tracked == twin.num_batches_tracked == 3
    x = torch.tensor(batches(*shape)[0], requires_grad=True)
    y, dy = twin.eval()(x), torch.randn(shape, dtype=torch.float64)
    assert_allclose(layer.eval().forward(x.detach()), y.detach(), **TOLERANCE)
    assert_allclose(layer.backward(dy), torch.autograd.grad(y, x, dy)[0], **TOLERANCE)


SQUARED_SCALES: dict[str, Callable[[numpy.ndarray], numpy.ndarray]] = {
    "l1-batch": lambda x: math.pi / 2 * numpy.abs(x - x.mean(axis=(0, 2), keepdims=True)).mean(
        axis=(0, 2)) ** 2,
    "lp-batch": lambda x: (x**2).mean(axis=(0, 2)),
    "linf-batch": lambda x: numpy.abs(x - x.mean(axis=(0, 2), keepdims=True)).max(axis=(0, 2)) ** 2
    / (2 * math.log(x.size / x.shape[1])),
    "ghost": lambda x: numpy.mean(
        [part.var(axis=(0, 2), ddof=1) for part in (x[:3], x[3:])], axis=0),
}  # fmt: skip


@pytest.mark.parametrize("name", SQUARED_SCALES)
def test_what_enters_and_what_evaluation_does_with_it(name: str) -> None:
    layer = reference.create(name, 4, momentum=0.25, **({"size": 3} if name == "ghost" else {}))
    (x,) = batches(6, 4, 5, count=1)
    layer.forward(x)
    variance = 0.75 + 0.25 * SQUARED_SCALES[name](x)
    mean = 0.25 * x.mean(axis=(0, 2))
    assert_allclose(layer.running_mean, mean, **TOLERANCE)
    assert_allclose(layer.running_var, variance, **TOLERANCE)
    odd = x[:5]  # evaluation needs no ghost batches
    wanted = (odd - mean[:, None]) / numpy.sqrt(variance + 1e-5)[:, None]
    assert_allclose(layer.forward(odd, training=False), wanted, **TOLERANCE)


@pytest.mark.parametrize("name", ["zca", "pca"])
def test_whitening_tracks_one_covariance_per_group(name: str) -> None:
    layer = reference.create(name, 4, groups=2, momentum=1.0)
    (x,) = batches(6, 4, 5, count=1)
    y = layer.forward(x)
    rows = x.swapaxes(0, 1).reshape(4, -1)
    wanted = [numpy.cov(rows[k : k + 2], ddof=0) for k in (0, 2)]
    assert_allclose(layer.running_cov, wanted, **TOLERANCE)
    assert_allclose(layer.running_mean, rows.mean(axis=1), **TOLERANCE)
    assert layer.running_var is None
    assert_allclose(layer.forward(x, training=False), y, rtol=1e-11, atol=1e-12)


def test_ghost_whitening_averages_over_the_parts_of_each_group() -> None:
    spec = Spec.of("(k [n]) (g c)", scale="zca")
    layer = reference.Normalizer(spec, 4, sizes={"n": 4, "g": 2}, momentum=1.0)
    (x,) = batches(8, 4, count=1)
    layer.forward(x)
    for g, columns in enumerate((x[:, :2], x[:, 2:])):
        parts = [numpy.cov(columns[k : k + 4].T, ddof=0) for k in (0, 4)]
        assert_allclose(layer.running_cov[g], numpy.mean(parts, axis=0), **TOLERANCE)


@pytest.mark.parametrize("scale", ["std", "zca"])
def test_evaluation_without_center_subtracts_nothing(scale: str) -> None:
    spec = Spec.of("[n] (g c)", scale=scale, center=False)
    layer = reference.Normalizer(spec, 4, sizes={"g": 4}, eps=0.0, momentum=1.0)
    (x,) = batches(8, 4, count=1)
    layer.forward(x)
    deviation = x.std(axis=0, ddof=1 if scale == "std" else 0)
    assert_allclose(layer.eval().forward(x), x / deviation, **TOLERANCE)


def test_statistics_per_activation_have_the_shape_of_the_activations() -> None:
    layer = reference.create("batch-per-activation", (4, 5), momentum=1.0)
    (x,) = batches(6, 4, 5, count=1)
    layer.forward(x)
    assert_allclose(layer.running_var, x.var(axis=0, ddof=1), **TOLERANCE)


def test_mean_only_leaves_the_scale_alone_in_evaluation_too() -> None:
    layer = reference.Normalizer(Spec.of("[n] c", scale=None), 3, momentum=1.0)
    (x,) = batches(6, 3, count=1)
    layer.forward(x)
    assert_allclose(layer.eval().forward(x), x - x.mean(axis=0), **TOLERANCE)


# 1e200 has a finite mean, and a variance beyond float64
@pytest.mark.parametrize("poison", [numpy.nan, numpy.inf, 1e200])
def test_a_channel_that_is_not_finite_does_not_enter(poison: float) -> None:
    first, second = batches(6, 3, count=2)
    layer, clean = reference.BatchNorm(3), reference.BatchNorm(3)
    for x in (first, second):
        clean.forward(x)
    second[2, 1] = poison
    layer.forward(first)
    before = layer.running_mean[1], layer.running_var[1]
    with numpy.errstate(invalid="ignore", over="ignore"):
        layer.forward(second)
    assert (layer.running_mean[1], layer.running_var[1]) == before
    for k in (0, 2):
        assert layer.running_mean[k] == clean.running_mean[k]
        assert layer.running_var[k] == clean.running_var[k]


def test_a_group_that_is_not_finite_does_not_enter_nor_harm_the_other() -> None:
    """NumPy's eigenvalue solver raises on a matrix of three or more rows that is not finite."""
    (x,) = batches(8, 6, count=1)
    x[0, 0] = numpy.nan
    layer = reference.create("zca", 6, groups=2, momentum=1.0)
    y = layer.forward(x)
    assert numpy.isnan(y[:, :3]).all()
    assert numpy.isfinite(y[:, 3:]).all()
    assert (layer.running_cov[0] == numpy.eye(3)).all()
    assert_allclose(layer.running_cov[1], numpy.cov(x[:, 3:].T, ddof=0), **TOLERANCE)
    assert layer.running_mean[:3].tolist() == [0.0, 0.0, 0.0]


def test_cumulative_average_skips_a_batch_of_which_nothing_entered() -> None:
    (x,) = batches(6, 3, count=1)
    layer = reference.BatchNorm(3, momentum=None)
    layer.forward(numpy.full_like(x, numpy.nan))
    assert layer.num_batches_tracked == 0
    assert layer.running_mean.tolist() == [0.0] * 3
    layer.forward(x)
    assert_allclose(layer.running_mean, x.mean(axis=0), **TOLERANCE)


def test_evaluation_and_single_sample_normalizers_track_nothing() -> None:
    (x,) = batches(6, 4, count=1)
    layer = reference.BatchNorm(4).eval()
    layer.forward(x)
    assert layer.num_batches_tracked == 0
    assert reference.LayerNorm(4).running_mean is None
    assert reference.LayerNorm(4).num_batches_tracked is None


def test_reset_and_no_tracking() -> None:
    (x,) = batches(6, 4, count=1)
    layer = reference.BatchNorm(4)
    y = layer.forward(x)
    layer.reset_running_stats()
    assert layer.running_var.tolist() == [1.0] * 4
    layer.running = None
    assert (layer.eval().forward(x) == y).all()
