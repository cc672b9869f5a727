"""The built-in networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anynorm.study.cell import Cell
from anynorm.study.data import load
from anynorm.study.norm_argument import Norms
from anynorm.study.subjects import SUBJECTS

PLACES = [(name, place) for name, subject in SUBJECTS.items() for place in subject.placements]


@pytest.mark.parametrize(("name", "placement"), PLACES)
def test_every_subject_takes_its_own_data(name: str, placement: str) -> None:
    subject = SUBJECTS[name]
    data = load(subject.settings.data)
    norms = Norms(Cell(subject=name, data="", norm="batch", lr=1.0, steps=1, seed=0))
    model = subject.build(data.inputs, data.outputs, norm=norms.function(), placement=placement)
    positions = data.train_y.shape[1:] if data.task == "language" else ()
    assert model(data.train_x[:4]).shape == (4, *positions, data.outputs)
    assert norms.count


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_has_the_places_that_it_compares(name: str) -> None:
    subject = SUBJECTS[name]
    assert set(subject.settings.placements) <= set(subject.placements)


@pytest.mark.parametrize(("name", "layers"), [("mlp-sigmoid", 3), ("mlp-relu", 8)])
def test_depth_and_width(name: str, layers: int) -> None:
    model = SUBJECTS[name].build(
        (1, 8, 8), 10, norm=lambda *_, **__: nn.Identity(), placement="before"
    )
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [100] * layers + [10]


def test_placement_moves_the_normalizer_behind_the_activation() -> None:
    def order(placement: str) -> list[type]:
        model = SUBJECTS["mlp-relu"].build(
            (4,), 2, norm=lambda n, **_: nn.BatchNorm1d(n), placement=placement
        )
        return [type(layer) for layer in list(model)[2:4]]

    assert order("before") == [nn.BatchNorm1d, nn.ReLU]
    assert order("after") == [nn.ReLU, nn.BatchNorm1d]


def test_initial_weights_have_the_stated_deviation() -> None:
    for name, std in (("mlp-sigmoid", 0.01), ("mlp-relu", (2 / 100) ** 0.5)):
        torch.manual_seed(0)
        model = SUBJECTS[name].build(
            (64,), 10, norm=lambda *_, **__: nn.Identity(), placement="before"
        )
        weight = model[4].weight
        # The deviation of 10,000 Gaussian numbers is within 4 / sqrt(20,000), 3%, of the true one.
        assert abs(weight.std() / std - 1) < 0.03
        assert not model[4].bias.any()


def test_rnn_shares_one_normalizer_over_time() -> None:
    norm = nn.BatchNorm1d(100)
    model = SUBJECTS["rnn"].build((1, 8, 8), 10, norm=lambda *_, **__: norm, placement="before")
    model(torch.randn(4, 1, 8, 8))
    assert norm.num_batches_tracked == 64
    recurrent = model.recurrent.weight
    # Products of 100 float32 numbers.
    torch.testing.assert_close(recurrent @ recurrent.T, torch.eye(100), rtol=0, atol=1e-5)


def test_deep_linear_net_is_linear_and_deep() -> None:
    model = SUBJECTS["deep-linear"].build(
        (10,), 10, norm=lambda *_, **__: nn.Identity(), placement="before"
    )
    assert sum(isinstance(layer, nn.Linear) for layer in model) == 25
    x, zero = torch.randn(3, 10), torch.zeros(1, 10)
    torch.testing.assert_close(model(2 * x) - model(zero), 2 * (model(x) - model(zero)))
