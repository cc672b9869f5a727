"""The |γ| of a model and their gap."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import Gammas
from anynorm.surgery.gammas import gap_of


@pytest.mark.parametrize(
    ("values", "gap"),
    [
        ([0.3, 0.001, 0.4, 0.002], (0.002, 0.3)),
        ([0.0, 0.0, 1.0], (0.001, 1.0)),
        ([1e-9, 0.01, 0.4, 0.5], (0.01, 0.4)),
        ([0.5, 0.7, 0.9], None),
        ([0.0, 0.0], None),
        ([], None),
    ],
)
def test_the_widest_gap(values: list[float], gap: tuple[float, float] | None) -> None:
    assert gap_of(values) == gap


def test_channels_of_layers_that_scale_single_ones(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.GroupNorm(1, 4), anynorm.FrozenBatchNorm(2), nn.InstanceNorm2d(5)
    )
    model[0].weight.data = torch.tensor([1.0, -0.5, 0.0])  # type: ignore[assignment]
    found = Gammas.of(model)
    assert found.values == {"0": (1.0, 0.5, 0.0), "2": (1.0, 1.0)}
    assert found.gap == (0.001, 0.5)
    assert found.below == 0.2
    assert list(Gammas.of(model, ["2"]).values) == ["2"]
    found.picture(tmp_path / "new" / "scales.svg")
    assert "1 (20%) lie below the gap" in (tmp_path / "new" / "scales.svg").read_text("utf-8")


def test_models_without_scales_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(AnynormError, match="there is no γ to draw"):
        Gammas.of(nn.Linear(2, 2)).picture(tmp_path / "scales.svg")
