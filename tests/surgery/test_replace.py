"""Replacing normalization layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import replace_norms


def recorded(seen: list[int]) -> Callable[[int], nn.Module]:
    def make(channels: int) -> nn.Module:
        seen.append(channels)
        return nn.Identity()

    return make


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(6),
        nn.BatchNorm2d(6, affine=False),
        nn.BatchNorm3d(6),
        nn.SyncBatchNorm(6),
        nn.InstanceNorm2d(6),
        nn.GroupNorm(2, 6),
        nn.LayerNorm(6),
        nn.LayerNorm([6, 8, 8]),
        nn.RMSNorm(6),
        anynorm.BatchNorm2d(6),
        anynorm.create("group", 6, groups=3),
    ],
)
def test_every_kind_is_found_with_its_channels(layer: nn.Module) -> None:
    seen: list[int] = []
    model, count = replace_norms(nn.Sequential(nn.ReLU(), layer), recorded(seen))
    assert (seen, count) == ([6], 1)
    assert layer not in list(model.modules())


def test_models_without_normalizers_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert replace_norms(model, recorded([])) == (model, 0)


def test_tied_layers_are_replaced_once_under_every_name() -> None:
    shared, seen = nn.BatchNorm1d(3), []
    model, count = replace_norms(nn.Sequential(shared, nn.ReLU(), shared), recorded(seen))
    assert (count, seen) == (1, [3])
    assert model[0] is model[2]
    assert isinstance(model[0], nn.Identity)


def test_a_model_that_is_one_normalizer() -> None:
    model, _ = replace_norms(nn.BatchNorm1d(3), recorded([]))
    assert isinstance(model, nn.Identity)


def test_mode_dtype_and_hooks_are_kept() -> None:
    old, calls = nn.BatchNorm1d(3).double().eval(), []
    old.register_forward_hook(lambda *_: calls.append("after"))
    old.register_forward_pre_hook(lambda *_: calls.append("before"))
    model, _ = replace_norms(nn.Sequential(old), nn.BatchNorm1d)
    assert not model[0].training
    assert model[0].weight.dtype == torch.float64
    model(torch.randn(2, 3, dtype=torch.float64))
    assert calls == ["before", "after"]


def test_activation_of_our_layers_is_kept() -> None:
    model, _ = replace_norms(nn.Sequential(anynorm.BatchNorm1d(3, activation="relu")), recorded([]))
    assert model(torch.tensor([[-1.0, 0.0, 2.0]])).tolist() == [[0.0, 0.0, 2.0]]


def test_last_axis_layers_keep_their_axis() -> None:
    x = torch.randn(2, 5, 3)
    for old in (nn.LayerNorm(3), anynorm.create("layer", 3)):
        model, _ = replace_norms(nn.Sequential(old), nn.BatchNorm1d)
        expected = nn.BatchNorm1d(3)(x.reshape(10, 3)).reshape(2, 5, 3)
        torch.testing.assert_close(model(x), expected)


def test_transformer_layers_use_the_new_normalizers_in_eval_mode_too() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model, count = replace_norms(nn.TransformerEncoder(layer, 2), nn.BatchNorm1d)
    x = torch.randn(2, 5, 8)
    for _ in range(400):  # the running statistics come to those of the batch
        expected = model(x)
    assert count == 4
    # Running variances are unbiased: 10 / 9 of the batch's, compounded over four layers.
    torch.testing.assert_close(model.eval()(x), expected, rtol=0.25, atol=0.25)


def test_subclasses_are_refused_by_name() -> None:
    class BatchNormAct(nn.BatchNorm1d):
        pass

    with pytest.raises(AnynormError, match="'0' cannot be replaced: a BatchNormAct is"):
        replace_norms(nn.Sequential(BatchNormAct(3)), recorded([]))
