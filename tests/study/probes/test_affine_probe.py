"""Mean and deviation of what batch norm gives, beside β and |γ|."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anynorm.study.probes import affine
from anynorm.study.probes.channels import channels_of


def test_the_output_has_mean_beta_and_deviation_gamma() -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
    nn.init.normal_(model[1].weight)
    nn.init.normal_(model[1].bias)
    before = [p.clone() for p in (*model.parameters(), *model.buffers())]
    found = affine.measure(model.eval(), channels_of(model), torch.randn(8, 1, 6, 6))
    assert found["layers"] == ["1"]
    # float32 sums of 128 values; ε beside variances near 1 / 3.
    assert found["mean"][0] == pytest.approx(found["beta"][0], abs=1e-6)
    assert found["deviation"][0] == pytest.approx(found["gamma"][0], rel=1e-3)
    assert not model.training
    after = [*model.parameters(), *model.buffers()]
    assert all(map(torch.equal, before, after))


def test_a_deviation_is_smaller_where_the_input_hardly_varies() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1))
    x = 1e-3 * torch.randn(64, 1)
    found = affine.measure(model, channels_of(model), x)
    assert found["deviation"][0][0] < 0.5
