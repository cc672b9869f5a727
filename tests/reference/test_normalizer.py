from __future__ import annotations

import array_api_strict
import numpy
import pytest
import torch

from anynorm import reference
from anynorm.errors import AnynormError, ShapeError, UnknownNameError
from anynorm.reference import Normalizer
from anynorm.spec import Scale, Spec

from .numeric import close, gradient

SPECS = {
    "mean only": Spec.of("[n] c [...]", scale=None),
    "std without μ": Spec.of("[n] c [...]", center=False),
    "rms with μ": Spec.of("n [c ...]", scale="rms"),
    "p = 1, about zero": Spec.of("[n] c [...]", scale="lp", p=1.0),
    "p = 1.5": Spec.of("n [c] ...", scale=Scale(p=1.5, constant="gaussian")),
    "p = 4": Spec.of("n c [...]", scale=Scale(p=4.0, constant=0.7)),
    "largest, about zero": Spec.of("n [c ...]", scale=Scale(p=numpy.inf, origin="zero")),
    "groups over the batch": Spec.of("[n] (g [c]) ..."),
    "ghost groups": Spec.of("(k [n]) (g [c]) [...]"),
    "zca without μ": Spec.of("[n] (g c) [...]", scale="zca", center=False),
    "zca about zero": Spec.of("[n] (g c) [...]", scale=Scale(root="zca", origin="zero")),
    "ghost zca": Spec.of("(k [n]) (g c) [...]", scale="zca"),
}


def normals(*shape: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("training", [True, False])
def test_backward_agrees_with_central_differences(name: str, training: bool) -> None:
    layer = Normalizer(SPECS[name], 4, eps=1e-3, sizes={"g": 2, "n": 3}, activation="tanh")
    layer.gamma, layer.beta = normals(4, seed=1), normals(4, seed=2)
    x, dy = 0.5 + normals(6, 4, 3), normals(6, 4, 3, seed=3)
    layer.forward(x + 1.0)  # for running statistics that differ from x's own
    wanted = gradient(lambda v: layer.train(training).forward(v), x, dy)
    layer.forward(x)
    assert close(layer.backward(dy), wanted)


def test_weight_norm_divides_by_the_norm() -> None:
    v, g = normals(3, 2, 4), numpy.asarray([1.0, -2.0, 3.0])
    layer = reference.create("weight", 3)
    layer.gamma = g
    norms = numpy.sqrt((v**2).sum(axis=(1, 2)))
    numpy.testing.assert_allclose(layer.forward(v), v * (g / norms)[:, None, None], rtol=1e-14)


@pytest.mark.parametrize("name", ["batch", "linf-batch", "group", "zca", "none"])
def test_empty_input_gives_empty_output(name: str) -> None:
    options = {"groups": 2} if name in ("group", "zca") else {}
    layer = reference.create(name, 4, **options)
    assert layer.forward(numpy.zeros((0, 4, 3))).shape == (0, 4, 3)
    assert layer.backward(numpy.zeros((0, 4, 3))).shape == (0, 4, 3)
    assert layer.dgamma.tolist() == [0.0] * 4
    assert not layer.num_batches_tracked


def test_a_sequence_or_tensor_is_taken_for_a_numpy_array() -> None:
    wanted = reference.LayerNorm(2).forward(numpy.asarray([[1.0, 4.0]]))
    for x in ([[1, 4]], torch.tensor([[1.0, 4.0]]), numpy.asarray([[1, 4]], dtype="int8")):
        assert reference.LayerNorm(2).forward(x).tolist() == wanted.tolist()


def test_results_are_float64_of_the_callers_library() -> None:
    layer = reference.BatchNorm(2)
    y = layer(array_api_strict.asarray([[1, 2], [3, 5]], dtype=array_api_strict.float32))
    assert y.dtype == array_api_strict.float64
    assert layer.running_var.__array_namespace__() is array_api_strict


def test_two_layers_do_not_share_what_they_saved() -> None:
    layers = [reference.BatchNorm(3), reference.BatchNorm(3)]
    inputs, dy = [normals(5, 3, seed=k) for k in (1, 2)], normals(5, 3)
    for layer, x in zip(layers, inputs, strict=True):
        layer.forward(x)
    alone = reference.BatchNorm(3)
    alone.forward(inputs[0])
    assert (layers[0].backward(dy) == alone.backward(dy)).all()


def test_backward_before_forward() -> None:
    with pytest.raises(AnynormError, match=r"Call forward\(\) first"):
        reference.BatchNorm(3).backward(normals(2, 3))


def test_gradient_of_another_shape() -> None:
    layer = reference.BatchNorm(3)
    layer.forward(normals(4, 3))
    with pytest.raises(ShapeError, match=r"dy has shape \(4, 1\), the last output \(4, 3\)"):
        layer.backward(normals(4, 1))


def test_wrong_channels() -> None:
    with pytest.raises(ShapeError, match=r"shape \(4, 5\) has \(5,\) channels from axis 1 on"):
        reference.BatchNorm(3).forward(normals(4, 5))


@pytest.mark.parametrize("name", ["batch", "l1-batch", "pca"])
def test_one_value_per_channel_names_the_fix(name: str) -> None:
    layer = reference.create(name, 3)
    with pytest.raises(ShapeError, match=r"shape \(1, 3\).*call eval\(\)"):
        layer.forward(normals(1, 3))
    assert layer.eval().forward(normals(1, 3)).shape == (1, 3)


def test_whitening_needs_channels_to_mix() -> None:
    with pytest.raises(AnynormError, match=r"no unbracketed axis 'c'"):
        Normalizer(Spec.of("n [c ...]", scale="zca"), 4)


def test_unknown_activation() -> None:
    with pytest.raises(UnknownNameError, match='Did you mean "relu"'):
        reference.BatchNorm(3, activation="rellu")
