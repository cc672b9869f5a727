"""How much a channel matters: the rise of the loss when it becomes constant."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anynorm.study.probes import importance
from anynorm.study.probes.channels import channels_of


def model() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4), nn.BatchNorm1d(4)
    )
    for norm in (made[1], made[4]):
        nn.init.uniform_(norm.weight, 0.2, 2.0)
        nn.init.normal_(norm.bias)
    return made


@pytest.fixture(name="batch")
def mini_batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(32, 3), torch.randint(4, (32,))


def measured(made: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
    return importance.measure(made, channels_of(made), nn.functional.cross_entropy, *batch)


def test_the_rise_is_that_of_a_channel_that_outputs_beta(batch: tuple[Tensor, Tensor]) -> None:
    made = model()
    found = measured(made, batch)
    x, y = batch
    hidden = made[1](made[0](x))
    hidden[:, 2] = made[1].bias[2]
    expected = nn.functional.cross_entropy(made[4](made[3](hidden.relu())), y)
    assert found["rise"][0][2] == pytest.approx(expected.item() - found["loss"], abs=1e-6)


def test_the_model_is_left_as_it_was(batch: tuple[Tensor, Tensor]) -> None:
    made = model().eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    measured(made, batch)
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    assert not made.training


def test_shares_by_layer_and_overall(batch: tuple[Tensor, Tensor]) -> None:
    made = model()
    found = measured(made, batch)
    assert len(found["by_layer"]["smallest"]) == len(importance.SHARES)
    assert all(len(losses) == importance.DRAWS for losses in found["overall"]["random"])
    # Half of each layer, the channels of smallest |γ|, checked by hand.
    for norm in (made[1], made[4]):
        smallest = norm.weight.argsort()[: len(norm.weight) // 2]
        norm.weight.data[smallest] = 0
    loss = nn.functional.cross_entropy(made(batch[0]), batch[1]).item()
    assert found["by_layer"]["smallest"][2] == pytest.approx(loss, abs=1e-6)


def test_correlations_are_of_gamma_with_the_rise(batch: tuple[Tensor, Tensor]) -> None:
    found = measured(model(), batch)
    pairs = zip(found["gamma"], found["rise"], strict=True)
    assert found["within"] == [importance.rank_correlation(*pair) for pair in pairs]
    assert -1 <= found["across"] <= 1


def test_equal_values_have_no_order() -> None:
    assert math.isnan(importance.rank_correlation([1.0, 1.0], [1.0, 2.0]))
    assert importance.rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
