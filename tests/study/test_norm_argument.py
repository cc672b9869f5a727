"""What a model gets as ``norm=``."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch import nn

from anynorm import create
from anynorm.errors import AnynormError, ShapeError
from anynorm.study.cell import Cell
from anynorm.study.norm_argument import MakeNorm, Norms


def maker(norm: str = "batch", **changes: Any) -> MakeNorm:
    cell = Cell(subject="", data="", norm=norm, lr=0.1, steps=1, seed=0, **changes)
    return Norms(cell).function()


def test_it_is_a_plain_function() -> None:
    assert type(maker()) is types.FunctionType


@pytest.mark.parametrize("name", ["batch", "layer", "rms", "group"])
@pytest.mark.parametrize("channels_last", [None, True])
def test_channels_on_the_last_axis(name: str, channels_last: bool | None) -> None:
    options = (("groups", 2),) if name == "group" else ()
    x = torch.randn(4, 5, 6)
    norm = maker(name, norm_options=options)(6, channels_last=channels_last)
    rows = create(name, 6, **dict(options))(x.reshape(-1, 6))
    torch.testing.assert_close(norm(x), rows.view_as(x))


@pytest.mark.parametrize("channels_last", [None, False])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (4, 6, 5, 5), (4, 6, 5, 6)])
def test_channels_on_axis_1(shape: tuple[int, ...], channels_last: bool | None) -> None:
    x = torch.randn(shape)
    norm = maker("layer")(6, channels_last=channels_last)
    torch.testing.assert_close(norm(x), create("layer", 6, channels_first=True)(x))


def test_the_first_input_decides() -> None:
    norm = maker("layer")(6)
    norm(torch.randn(4, 5, 6))
    x = torch.randn(4, 6, 6)
    torch.testing.assert_close(norm(x), create("layer", 6)(x))


def test_an_input_that_could_be_either_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"norm\(6, channels_last=True\) for \(N, T, C\)"):
        maker()(6)(torch.randn(4, 6, 6))


@pytest.mark.parametrize(
    ("channels_last", "shape", "words"),
    [
        (None, (4, 5, 7), r"axis 1 or the last one must have size 6\. Call norm\(\) with the size"),
        (None, (4, 5, 6, 7), r"Axis 2 has that size: permute the input, as in x\.movedim\(2, -1\)"),
        (True, (4, 6, 5), r"the last axis must have size 6\. Axis 1 has that size"),
        (False, (4, 5, 6), r"Axis 2 has size 6: if the channels are there, .*x\.movedim\(2, 1\)"),
    ],
)
def test_a_misplaced_axis_is_named(
    channels_last: bool | None, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ShapeError, match=words):
        maker()(6, channels_last=channels_last)(torch.randn(shape))


def test_noise_draws_for_channels_on_the_last_axis() -> None:
    noisy = maker("none", noise=True)(6, channels_last=True)
    units = noisy(torch.zeros(50, 40, 6)).flatten(0, 1)
    # Shifts are drawn for each unit from ±0.5 and for each sample from ±0.1 around that.
    assert units.std(dim=0).max() < 0.1
    assert units.mean(dim=0).std() > 0.1


def test_a_residual_reaches_the_normalizer() -> None:
    norm, x = maker("rms")(6), torch.randn(4, 5, 6)
    torch.testing.assert_close(norm(x, x), create("rms", 6)(x) + x)


def test_weight_normalizers_leave_the_places_empty() -> None:
    assert type(maker("weight")(6)) is nn.Identity


@pytest.mark.parametrize("affine", [True, False])
def test_queries_and_keys_get_rms_norm_over_the_last_axis(affine: bool) -> None:
    norm = maker("layer", norm_options=(("qk", True),), affine=affine)(6, qk=True)
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(norm(x), create("rms", 6)(x))
    assert [p.requires_grad for p in norm.parameters()] == [affine]


def test_qk_is_true_or_false() -> None:
    with pytest.raises(AnynormError, match=r"qk=3 in rms\(qk=3\): give qk=true"):
        maker("rms", norm_options=(("qk", 3),))
