import pytest
import torch
from torch import nn

import anynorm
from anynorm.study.probes.layers import called, weight_layers


class Backwards(nn.Module):
    """Registers its layers in the opposite of the order in which it calls them."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4)
        self.first = nn.Linear(3, 4)
        self.unused = nn.Linear(9, 9)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu_())


def names(model, x):
    return [layer.name for layer in weight_layers(model, x)]


def test_order_is_that_of_execution():
    model, x = Backwards(), torch.randn(5, 3)
    assert names(model, x) == ["first", "last"]
    assert list(called(model, x)) == ["", "first", "norm", "last"]


def test_normalization_parameters_come_before_the_next_weight_layer():
    model = Backwards()
    _, last = weight_layers(model, torch.randn(5, 3))
    assert set(last.before) == {*model.first.parameters(), *model.norm.parameters()}
    assert set(last.parameters) == set(model.last.parameters())
    assert last.weights == (model.last.weight,)


def test_a_normalization_with_a_matrix_of_scales_is_no_weight_layer():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.LayerNorm([2, 3, 3]))
    assert names(model, torch.randn(2, 1, 3, 3)) == ["0"]


def test_per_activation_scales_are_no_weight_layer():
    model = nn.Sequential(nn.Linear(3, 6), anynorm.create("batch-per-activation", 6))
    model.append(nn.Unflatten(1, (2, 3))).append(anynorm.create("batch-per-activation", (2, 3)))
    assert names(model, torch.randn(4, 3)) == ["0"]


@pytest.mark.parametrize("name", ["weight", "weight-standardization", "cosine"])
def test_a_layer_with_normalized_weights_keeps_its_name(name):
    model = nn.Sequential(anynorm.normalized(nn.Linear(3, 4), name), nn.Linear(4, 2))
    first, second = weight_layers(model, torch.randn(5, 3))
    assert (first.name, second.name) == ("0", "1")
    assert set(first.parameters) == set(model[0].parameters())
    assert [weight.shape for weight in first.weights] == [(4, 3)]


def test_frozen_layers_are_left_out():
    model = nn.Sequential(nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3))
    (layer,) = weight_layers(model, torch.randn(2, 3))
    assert (layer.name, layer.before) == ("1", ())


def test_a_tied_weight_is_the_layers_own():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    _, second = weight_layers(model, torch.randn(2, 3))
    assert second.parameters == (model[0].weight,)
    assert second.before == ()


def test_parametrized_weights_and_attention_are_one_layer_each():
    x = torch.randn(2, 3)
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    (layer,) = weight_layers(normed, x)
    assert (layer.name, len(layer.parameters)) == ("0", 3)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(4, 2)

        def forward(self, x):
            return self.attend(x, x, x)[0]

    (layer,) = weight_layers(Attention(), torch.randn(5, 2, 4))
    assert (layer.name, len(layer.parameters)) == ("attend", 4)
