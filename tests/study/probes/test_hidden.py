import pytest
import torch
from torch import nn

import anynorm
from anynorm.study.probes.hidden import activation_of, hidden_layers, pre_activations


def test_watched_are_activations_in_order_of_execution():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Sigmoid(), nn.Tanh()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.second(self.first(self.layer(x))))

    assert list(hidden_layers(Net(), torch.randn(2, 3))) == ["first", "second"]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.Sigmoid(), "sigmoid"),
        (anynorm.BatchNorm1d(3, activation="relu"), "relu"),
        (anynorm.create("rms", 3, activation=torch.tanh), "tanh"),
        (anynorm.BatchNorm1d(3), ""),
        (anynorm.create("batch", 3, activation="identity"), ""),
        (anynorm.create("batch", 3, activation=nn.ReLU()), ""),
    ],
)
def test_names_of_activations(module, name):
    assert activation_of(module) == name


def test_an_activation_module_inside_a_normalizer_is_watched_once():
    model = nn.Sequential(nn.Linear(3, 3), anynorm.create("batch", 3, activation=nn.ReLU()))
    assert list(hidden_layers(model, torch.randn(4, 3))) == ["1.activation"]


@pytest.mark.parametrize(
    "fused",
    [
        lambda: anynorm.BatchNorm1d(3, activation="relu"),
        lambda: anynorm.create("batch", 3, activation="relu"),
    ],
)
def test_a_fused_activation_is_seen_through(fused):
    model, x = nn.Sequential(fused()), torch.randn(8, 3)
    z = pre_activations(model, ["0"], x)["0"]
    torch.testing.assert_close(z, nn.BatchNorm1d(3)(x))
    assert model[0].activation == "relu"
    assert model[0].num_batches_tracked == 0


def test_inputs_are_copied_before_an_in_place_activation_and_no_hook_stays():
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    x = torch.randn(4, 3)
    kept = x.clone()
    inputs = pre_activations(model, ["1"], x)
    assert torch.equal(inputs["1"], kept)
    assert not model[1]._forward_pre_hooks


def test_of_a_module_called_often_the_last_call_counts():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.tanh = nn.Tanh()

        def forward(self, x):
            for _ in range(3):
                x = self.tanh(x)
            return x

    x = torch.randn(4, 3)
    assert torch.equal(pre_activations(Loop(), ["tanh"], x)["tanh"], x.tanh().tanh())
