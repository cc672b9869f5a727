"""Recognising normalization layers."""

from __future__ import annotations

import copy

import pytest
import torch
from surgery.models import BatchNormAct2d, Frozen
from torch import Tensor, nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery.normalizers import named, normalizers


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
    assert first.fused == (fused.drop, fused.act)
    assert first.activation is fused.act
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


def test_named_ones() -> None:
    found = normalizers(nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)))
    assert named(found, None, "normalize") == found
    assert named(found, ["1"], "normalize") == found[1:]
    with pytest.raises(AnynormError, match=r"\['2'\] do not normalize here. Those that do"):
        named(found, ["2"], "normalize")


def test_doubts_are_told() -> None:
    scaled, lazy = normalizers(nn.Sequential(Scaled(3), nn.LazyBatchNorm2d()))
    assert scaled.doubt == "a Scaled is a subclass of BatchNorm2d and may do more"
    assert lazy.doubt == "a LazyBatchNorm2d has no channels before the model is called once"


def test_instance_norms_are_fixed_by_their_flag() -> None:
    norm = nn.InstanceNorm2d(3, track_running_stats=True)
    assert normalizers(norm)[0].fixed
    norm.track_running_stats = False
    assert not normalizers(norm)[0].fixed


@pytest.mark.parametrize(
    ("layer", "changes", "expected"),
    [
        (nn.BatchNorm1d(3), {}, (True, True)),
        (nn.BatchNorm1d(3), {"num_batches_tracked": None}, (True, True)),
        (nn.BatchNorm1d(3), {"momentum": 0.0}, (True, False)),
        (nn.BatchNorm1d(3), {"momentum": None}, (True, True)),
        (nn.BatchNorm1d(3), {"momentum": None, "num_batches_tracked": None}, (True, False)),
        # The flag of torch's batch norm stops the update; eval mode uses the buffers all the same.
        (nn.BatchNorm1d(3), {"track_running_stats": False}, (True, False)),
        (anynorm.BatchNorm1d(3), {"track_running_stats": False}, (True, False)),
        (nn.BatchNorm1d(3), {"running_mean": None, "running_var": None}, (False, False)),
        (nn.InstanceNorm1d(3, track_running_stats=True), {}, (True, True)),
        (nn.InstanceNorm1d(3, track_running_stats=True), {"momentum": None}, (True, False)),
        (
            nn.InstanceNorm1d(3, track_running_stats=True),
            {"track_running_stats": False},
            (False, False),
        ),
        (anynorm.create("lp-batch", 3, p=3.0), {}, (True, True)),
        (anynorm.create("zca", 3), {"momentum": 0}, (True, False)),
        (anynorm.Norm("[n] c [...]", 3), {"track_running_stats": False}, (False, False)),
        (anynorm.FrozenBatchNorm(3), {}, (False, False)),
        (nn.GroupNorm(1, 3), {}, (False, False)),
    ],
)
def test_whether_statistics_are_tracked_and_move(
    layer: nn.Module, changes: dict[str, object], expected: tuple[bool, bool]
) -> None:
    layer = copy.deepcopy(layer)
    for name, value in changes.items():
        setattr(layer, name, value)
    (found,) = normalizers(layer)
    assert (found.tracks, found.moves) == expected
    if isinstance(layer, nn.GroupNorm) or found.constant:
        return
    before = _evaluated(layer)
    if before is None:
        assert not found.tracks
        return
    layer.train()(torch.randn(16, 3, 4) * 2 + 1)
    after = _evaluated(layer)
    assert after is not None
    # What the words say is what the layer does: `moves` where training changes eval mode.
    assert torch.equal(before, after) is not found.moves


def _evaluated(layer: nn.Module) -> Tensor | None:
    """What eval mode makes of fixed input; None where that depends on the other samples in it."""
    x = torch.linspace(-1, 1, 24).reshape(2, 3, 4)
    y: Tensor = layer.eval()(x)
    alone: Tensor = layer.eval()(x[:1] * 1.0)
    shifted: Tensor = layer.eval()(torch.cat([x[:1], x[1:] * 3]))
    kept = torch.allclose(y[:1], shifted[:1], atol=1e-6) and torch.allclose(y[:1], alone, atol=1e-6)
    return y if kept and normalizers(layer)[0].keeps else None


@pytest.mark.parametrize(("count", "batches"), [(5, 5), (-3, 0), (2.5, 2), (float("nan"), 0)])
def test_counts_of_batches(count: float, batches: int) -> None:
    norm = nn.BatchNorm1d(3)
    norm.num_batches_tracked = torch.tensor(count)
    assert normalizers(norm)[0].batches == batches
    norm.num_batches_tracked = None
    assert normalizers(norm)[0].batches == 0


def test_where_the_channels_are() -> None:
    patterns = ["... [c]", "[n ...] c", "[n l] c", "n [c]", "[n] c [...]", "[n] ..."]
    found = [normalizers(anynorm.Norm(pattern, 3))[0].takes_last_axis for pattern in patterns]
    assert found == [True, True, True, False, False, False]
