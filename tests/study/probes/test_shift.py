import copy
from functools import partial

import pytest
import torch
from torch import nn

from anynorm.study.probes import shift
from anynorm.study.probes.layers import weight_layers

X = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([[1.0], [0.0], [-1.0]], dtype=torch.float64)
ETA = 0.05


def linear_net():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    net[0].weight.data.copy_(torch.tensor([[1.0, -0.5], [0.3, 2.0]]))
    net[1].weight.data.copy_(torch.tensor([[0.7, -1.2]]))
    return net


def by_hand(first, second):
    """Gradients of mean((X·W₁ᵀ·W₂ᵀ − Y)²) written out."""
    error = 2 * (X @ first.T @ second.T - Y) / len(X)
    return second.T @ error.T @ X, error.T @ X @ first.T


def measured(probe, model, optimizer, x=X, y=Y):
    layers = weight_layers(model, x)
    return probe(partial(shift.measure, layers=layers), model, nn.MSELoss(), optimizer, x, y)


def test_two_linear_layers_by_hand(probe):
    net = linear_net()
    first, second = (layer.weight.detach().clone() for layer in net)
    g1, g2 = by_hand(first, second)
    _, ahead = by_hand(first - ETA * g1, second)
    found = measured(probe, net, torch.optim.SGD(net.parameters(), ETA))
    distance = (g2 - ahead).norm().item()
    assert found["distance"] == pytest.approx([0.0, distance], rel=1e-12)
    assert found["relative"] == pytest.approx([0.0, distance / g2.norm().item()], rel=1e-12)
    cosine = torch.cosine_similarity(g2.flatten(), ahead.flatten(), dim=0).item()
    assert found["cosine"] == pytest.approx([1.0, cosine], rel=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, ETA, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, ETA),
    ],
)
def test_the_layers_before_take_the_optimizers_own_step(probe, make):
    net = linear_net()
    optimizer = make(net.parameters())
    nn.MSELoss()(net(X), Y).backward()
    optimizer.step()
    found = measured(probe, net, optimizer)

    second = net[1].weight.detach().clone()
    _, g2 = by_hand(net[0].weight.detach(), second)
    optimizer.zero_grad()
    nn.MSELoss()(net(X), Y).backward()
    optimizer.step()
    _, ahead = by_hand(net[0].weight.detach(), second)
    assert found["distance"][1] == pytest.approx((g2 - ahead).norm().item(), rel=1e-9)


def test_normalization_between_two_layers_moves_with_the_first(probe):
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1)).double()
    optimizer = torch.optim.SGD(net.parameters(), ETA)
    found = measured(probe, net, optimizer)

    def gradient(model):
        model.zero_grad()
        nn.MSELoss()(model(X), Y).backward()
        return torch.cat([p.grad.flatten() for p in model[2].parameters()])

    moved = copy.deepcopy(net)
    present = gradient(net)
    for before, after in zip(net[:2].parameters(), moved[:2].parameters(), strict=True):
        after.data.sub_(ETA * before.grad)
    assert found["distance"][1] == pytest.approx((present - gradient(moved)).norm().item())


def test_layers_count_in_order_of_execution(probe):
    class Backwards(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.second, self.first = net[1], net[0]

        def forward(self, x):
            return self.second(self.first(x))

    plain, backwards = linear_net(), Backwards(linear_net())
    expected = measured(probe, plain, torch.optim.SGD(plain.parameters(), ETA))
    found = measured(probe, backwards, torch.optim.SGD(backwards.parameters(), ETA))
    assert found == expected


def test_four_layers_are_spread_over_the_depth_without_the_first():
    deep = nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))
    layers = weight_layers(deep, torch.randn(3, 2))
    assert [layer.name for layer in shift.spread(layers)] == ["2", "4", "6", "8"]
    assert [layer.name for layer in shift.spread(layers[:3])] == ["1", "2"]
    assert shift.spread(layers[:1]) == []
