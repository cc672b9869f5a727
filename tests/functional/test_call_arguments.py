"""Calls with what is no tensor, or with numbers that make no normalizer: errors that say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import anynorm
from anynorm import functional as F
from anynorm.errors import AnynormError, ShapeError

NO_TENSORS: dict[str, Any] = {
    "None": None,
    "numpy": np.zeros((2, 4, 3, 3), np.float32),
    "numbers": [1.0, 2.0],
    "tensors": [torch.zeros(2, 4, 3, 3)],
    "text": "x",
    "dict": {"logits": torch.zeros(2)},
    "number": 3.5,
}
NAMED = {name: value for name, value in NO_TENSORS.items() if value is not None}
LAYERS: dict[str, nn.Module] = {
    "BatchNorm2d": anynorm.BatchNorm2d(4),
    "LazyBatchNorm2d": anynorm.LazyBatchNorm2d(),
    "InstanceNorm2d": anynorm.InstanceNorm2d(4),
    "LayerNorm": anynorm.LayerNorm(3),
    "RMSNorm": anynorm.RMSNorm(3),
    "GroupNorm": anynorm.GroupNorm(2, 4),
    "FrozenBatchNorm": anynorm.FrozenBatchNorm(4),
    "ghost": anynorm.create("ghost", 4, size=2),
    "zca": anynorm.create("zca", 4),
    "none": anynorm.create("none", 4),
    "Activate": anynorm.Activate("relu"),
    "DynamicTanh": anynorm.DynamicTanh(3),
    "CosineConv2d": anynorm.CosineConv2d(4, 4, 3),
    "CosineLinear": anynorm.CosineLinear(3, 3),
}
STANDARD, L1 = (anynorm.catalogue[name].spec for name in ("instance", "l1-batch"))
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "batch_norm": lambda x, **given: F.batch_norm(x, None, None, training=True, **given),
    "instance_norm": F.instance_norm,
    "layer_norm": lambda x, **given: F.layer_norm(x, (3,), **given),
    "rms_norm": lambda x, **given: F.rms_norm(x, (3,), **given),
    "group_norm": lambda x, **given: F.group_norm(x, 2, **given),
    "normalize": lambda x, **given: F.normalize(x, STANDARD, **given),
    "normalize by L1": lambda x, **given: F.normalize(x, L1, **given),
}
TENSOR_LAYERS = [name for name in LAYERS if name not in ("Activate", "DynamicTanh", "none")]
UNMASKED = ("Activate", "DynamicTanh", "LayerNorm", "RMSNorm")
MASKED = [name for name in LAYERS if name not in UNMASKED]


def images() -> torch.Tensor:
    return torch.randn(2, 4, 3, 3)


@pytest.mark.parametrize("value", NO_TENSORS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_refuse_what_is_no_tensor(name: str, value: str) -> None:
    with pytest.raises(AnynormError, match="Tensor"):
        LAYERS[name](NO_TENSORS[value])


@pytest.mark.parametrize("value", NAMED)
@pytest.mark.parametrize("name", [n for n in LAYERS if not n.startswith(("Lazy", "Cosine"))])
def test_layers_refuse_residuals_that_are_no_tensors(name: str, value: str) -> None:
    with pytest.raises(AnynormError, match=r"residual.*Tensor"):
        LAYERS[name](images(), NAMED[value])


@pytest.mark.parametrize("value", NAMED)
@pytest.mark.parametrize("name", [n for n in MASKED if not n.startswith(("Lazy", "Cosine"))])
def test_layers_refuse_masks_that_are_no_tensors(name: str, value: str) -> None:
    with pytest.raises(AnynormError, match="mask"):
        LAYERS[name](images(), mask=NAMED[value])


@pytest.mark.parametrize("value", NO_TENSORS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_what_is_no_tensor(name: str, value: str) -> None:
    with pytest.raises(AnynormError, match="Tensor"):
        FUNCTIONS[name](NO_TENSORS[value])


@pytest.mark.parametrize("value", NAMED)
@pytest.mark.parametrize("argument", ["weight", "bias", "residual"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_other_arguments_that_are_no_tensors(
    name: str, argument: str, value: str
) -> None:
    if (name, argument) == ("rms_norm", "bias"):
        pytest.skip("rms_norm has no bias")
    with pytest.raises(AnynormError, match=rf"{argument}.*Tensor"):
        FUNCTIONS[name](images(), **{argument: NAMED[value]})


@pytest.mark.parametrize("eps", ["1e-5", [1e-5], np.ones(2)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_an_epsilon_that_is_none(name: str, eps: Any) -> None:
    with pytest.raises(AnynormError, match="eps"):
        FUNCTIONS[name](images(), eps=eps)


@pytest.mark.parametrize("momentum", ["0.1", [0.1]], ids=str)
@pytest.mark.parametrize("function", [F.batch_norm, F.instance_norm])
def test_functions_refuse_a_momentum_that_is_none(function: Any, momentum: Any) -> None:
    training = "training" if function is F.batch_norm else "use_input_stats"
    with pytest.raises(AnynormError, match="momentum"):
        function(images(), torch.zeros(4), torch.ones(4), momentum=momentum, **{training: True})


@pytest.mark.parametrize("given", [5.0, [1], {"relu": 1}], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_an_activation_that_is_none(name: str, given: Any) -> None:
    with pytest.raises(AnynormError, match="activation"):
        FUNCTIONS[name](images(), activation=given)


@pytest.mark.parametrize("function", [F.layer_norm, F.rms_norm])
@pytest.mark.parametrize("shape", [None, "3", 3, 2.5, ["3"]], ids=str)
def test_sizes_of_the_last_axes(function: Any, shape: Any) -> None:
    with pytest.raises(AnynormError, match="normalized_shape"):
        function(images(), shape)


@pytest.mark.parametrize("spec", [None, "batch", "[n] c [...]", {}], ids=str)
def test_a_specification_that_is_none(spec: Any) -> None:
    with pytest.raises(AnynormError, match="Spec"):
        F.normalize(images(), spec)


@pytest.mark.parametrize("name", TENSOR_LAYERS)
def test_whole_numbers_are_refused_as_inputs(name: str) -> None:
    if name in ("FrozenBatchNorm", "LazyBatchNorm2d"):
        LAYERS[name].eval()
    with pytest.raises(AnynormError, match="real floating-point"):
        LAYERS[name](images().to(torch.int64))


@pytest.mark.parametrize("name", ["BatchNorm2d", "LayerNorm", "GroupNorm", "CosineConv2d"])
def test_two_types_that_do_not_go_together(name: str) -> None:
    with pytest.raises(AnynormError, match=r"float32.*float64.*same type"):
        LAYERS[name](images().double())


def test_errors_of_the_users_activation_stay_what_they_are() -> None:
    def broken(_: torch.Tensor) -> torch.Tensor:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        F.layer_norm(images(), (3,), activation=broken)


BUILT: dict[str, Callable[[Any], Any]] = {
    "BatchNorm2d": anynorm.BatchNorm2d,
    "InstanceNorm2d": anynorm.InstanceNorm2d,
    "LayerNorm": anynorm.LayerNorm,
    "RMSNorm": anynorm.RMSNorm,
    "GroupNorm": lambda channels: anynorm.GroupNorm(1, channels),
    "FrozenBatchNorm": anynorm.FrozenBatchNorm,
    "DynamicTanh": anynorm.DynamicTanh,
    "Norm": lambda channels: anynorm.Norm("[n] c [...]", channels),
    "create": lambda channels: anynorm.create("rms", channels),
    "CosineLinear": lambda channels: anynorm.CosineLinear(channels, 2),
    "CosineConv1d": lambda channels: anynorm.CosineConv1d(2, channels, 3),
}


@pytest.mark.parametrize("channels", [None, "64", 0, -1, 2.5, ["4"], torch.zeros(3)], ids=str)
@pytest.mark.parametrize("name", BUILT)
def test_layers_refuse_channels_that_are_none(name: str, channels: Any) -> None:
    with pytest.raises(AnynormError, match=r"channels|features|normalized_shape"):
        BUILT[name](channels)


@pytest.mark.parametrize("given", [None, 5, ["batch"], {}], ids=str)
def test_names_patterns_and_scales_that_are_none(given: Any) -> None:
    for build in (
        lambda: anynorm.create(given, 4),
        lambda: anynorm.Norm(given, 4),
        lambda: anynorm.normalized(nn.Linear(2, 2), given),
        lambda: anynorm.Norm("[n] c [...]", 4, scale=given if given is not None else 1),
    ):
        with pytest.raises(AnynormError):
            build()


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("function", [F.batch_norm, F.instance_norm])
def test_vectors_that_are_not_of_the_channels(
    function: Callable[..., torch.Tensor], name: str
) -> None:
    given = {"running_mean": torch.zeros(3), "running_var": torch.ones(3), name: torch.ones(2)}
    with pytest.raises(ShapeError, match=rf"{name} has shape \(2,\), got 3 ch.*num_features=3"):
        function(torch.randn(4, 3, 5), **given)
