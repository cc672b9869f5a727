"""Freezing batch norms."""

from __future__ import annotations

import copy

import pytest
import torch
from surgery.models import BatchNormAct2d, lived
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import freeze

IMAGE = (4, 3, 5, 5)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3, eps=1e-3),
        nn.BatchNorm2d(3, affine=False),
        nn.SyncBatchNorm(3),
        anynorm.BatchNorm2d(3, activation="relu"),
        anynorm.create("ghost", 3, activation="silu"),
        BatchNormAct2d(3),
    ],
)
def test_frozen_layers_do_in_training_what_they_did_in_eval_mode(norm: nn.Module) -> None:
    model, x = lived(nn.Sequential(norm)), torch.randn(IMAGE)
    result = freeze(model, x)
    frozen = result.model.train()
    assert isinstance(frozen[0], anynorm.FrozenBatchNorm)
    torch.testing.assert_close(frozen(x), model(x), rtol=1e-6, atol=1e-6)
    assert not list(frozen.parameters())
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen(x)
    assert all(torch.equal(frozen.state_dict()[name], value) for name, value in before.items())


def test_names_in_the_state_dict_stay() -> None:
    model = lived(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    frozen = freeze(model).model
    assert sorted(frozen.state_dict()) == sorted(names)
    frozen.load_state_dict(model.state_dict())


def test_gamma_and_beta_may_go_on_learning() -> None:
    model = lived(nn.Sequential(nn.BatchNorm2d(3)))
    model[0].bias.requires_grad_(False)
    parameters = list(model.parameters())
    frozen = freeze(model, affine=False, inplace=True).model
    assert [id(p) for p in frozen.parameters()] == [id(p) for p in parameters]
    assert [p.requires_grad for p in frozen.parameters()] == [True, False]


def test_named_layers_only() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3)))
    frozen = freeze(model, layers=["1.0"]).model
    assert type(frozen[0]) is nn.BatchNorm2d
    assert type(frozen[1][0]) is anynorm.FrozenBatchNorm
    with pytest.raises(AnynormError, match=r"layers \['2'\] do not have running statistics"):
        freeze(model, layers=["2"])


def test_what_is_not_frozen() -> None:
    class Scaled(nn.BatchNorm2d):
        pass

    others = [
        nn.GroupNorm(1, 3),
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.BatchNorm2d(3, track_running_stats=False),
        anynorm.FrozenBatchNorm(3),
        Scaled(3),
    ]
    result = freeze(nn.Sequential(*others))
    assert not result.receipt.changed
    assert [note.layer for note in result.receipt.refused] == ["4"]
    assert "may do more" in result.receipt.refused[0].text


def test_tied_layers_hooks_and_modes() -> None:
    norm, seen = lived(nn.BatchNorm2d(3)), []
    norm.register_forward_hook(lambda *_: seen.append("called"))
    model = nn.Sequential(norm, nn.ReLU(), norm).eval()
    frozen = freeze(copy.deepcopy(model), torch.randn(IMAGE)).model
    assert frozen[0] is frozen[2]
    assert not frozen[0].training
    seen.clear()
    frozen(torch.randn(IMAGE))
    assert seen == ["called", "called"]


@pytest.mark.parametrize(
    "norm",
    [
        anynorm.create("lp-batch", 3, p=3.0),
        anynorm.Norm("[n] c [h w]", 3),
        anynorm.Norm("[n] c [...]", 3, scale=None),
        nn.BatchNorm2d(3, momentum=0.0),
        nn.BatchNorm2d(3, eps=0.0),
    ],
    ids=str,
)
def test_what_evaluates_as_batch_norm_does_is_frozen(norm: nn.Module) -> None:
    model, x = lived(nn.Sequential(norm)), torch.randn(IMAGE)
    frozen = freeze(model, x).model.train()
    assert isinstance(frozen[0], anynorm.FrozenBatchNorm)
    torch.testing.assert_close(frozen(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"num_batches_tracked": None}, {"track_running_stats": False}, {"momentum": None}]
)
def test_layers_are_frozen_whatever_moves_their_statistics(changes: dict[str, object]) -> None:
    norm = nn.BatchNorm2d(3)
    for name, value in changes.items():
        setattr(norm, name, value)
    model, x = lived(nn.Sequential(norm)), torch.randn(IMAGE)
    frozen = freeze(model, x).model.train()
    assert isinstance(frozen[0], anynorm.FrozenBatchNorm)
    torch.testing.assert_close(frozen(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pattern", ["[n ...] c", "[n] ..."])
def test_statistics_of_other_axes_are_refused(pattern: str) -> None:
    channels = 3 if "c" in pattern else (2, 3)
    [refused] = freeze(anynorm.Norm(pattern, channels)).receipt.refused
    assert refused.text == f"its statistics are not of channels on axis 1: {pattern}"
