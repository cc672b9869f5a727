"""Recognising normalization layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import anynorm
from anynorm.surgery.normalizers import normalizers


class BatchNormAct2d(nn.BatchNorm2d):
    """Built like the fused layers of image model collections."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x)))
        return y


class Frozen(nn.Module):
    """Built like the frozen batch norm of detection models."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))


class Scaled(nn.BatchNorm2d):
    """Does more than normalize."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("layer", "family", "channels"),
    [
        (nn.BatchNorm1d(6), "batch", 6),
        (nn.SyncBatchNorm(6), "batch", 6),
        (anynorm.BatchNorm3d(6), "batch", 6),
        (anynorm.create("batch", 6), "batch", 6),
        (anynorm.create("ghost", 6), "ghost", 6),
        (anynorm.Norm("[n c] ...", 6), "[n c] ...", 6),
        (anynorm.FrozenBatchNorm(6), "frozen", 6),
        (Frozen(6), "frozen", 6),
        (BatchNormAct2d(6), "batch", 6),
        (nn.InstanceNorm2d(6), "instance", 6),
        (nn.GroupNorm(2, 6), "group", 6),
        (anynorm.LayerNorm([6, 4]), "layer", 6),
        (nn.RMSNorm(6), "rms", 6),
    ],
)
def test_families(layer: nn.Module, family: str, channels: int) -> None:
    (found,) = normalizers(nn.Sequential(nn.Linear(2, 2), layer, nn.ReLU()))
    assert (found.name, found.family, found.channels) == ("1", family, channels)
    assert found.known


def test_fused_activations_are_found() -> None:
    fused, named = BatchNormAct2d(3), anynorm.BatchNorm2d(3, activation="silu")
    first, second = normalizers(nn.Sequential(fused, named))
    assert isinstance(first.activation, nn.Sequential)
    assert [*first.activation] == [fused.drop, fused.act]
    assert second.activation == "silu"


@pytest.mark.parametrize("layer", [Scaled(3), nn.LazyBatchNorm2d()])
def test_what_may_do_more_is_not_known(layer: nn.Module) -> None:
    (found,) = normalizers(layer)
    assert not found.known


def test_tied_layers_come_once_with_every_name() -> None:
    shared = nn.BatchNorm1d(3)
    (found,) = normalizers(nn.Sequential(shared, nn.Sequential(shared)))
    assert found.place.names == ("0", "1.0")


def test_which_keep_statistics() -> None:
    layers = [
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, track_running_stats=False),
        anynorm.FrozenBatchNorm(3),
        nn.LayerNorm(3),
        anynorm.create("zca", 3),
        anynorm.create("ghost", 3),
    ]
    found = [(norm.tracks, norm.fixed) for norm in normalizers(nn.Sequential(*layers))]
    assert found == [
        (True, True),
        (False, False),
        (False, True),
        (False, False),
        (True, False),
        (True, True),
    ]
