"""The penalty on γ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from anynorm.errors import AnynormError
from anynorm.surgery import Slim, slim


def model(*values: float) -> Any:
    norm = nn.BatchNorm1d(len(values))
    norm.weight.data = torch.tensor(values)
    return nn.Sequential(nn.Linear(3, len(values)), norm)


def test_l1_in_the_loss() -> None:
    net = model(0.5, -2.0, 0.0)
    loss = Slim(net, 0.1).loss()
    loss.backward()
    assert loss.item() == pytest.approx(0.25)
    torch.testing.assert_close(net[1].weight.grad, torch.tensor([0.1, -0.1, 0.0]))


def test_polarization_in_the_loss_against_finite_differences() -> None:
    values = torch.tensor([0.1, 0.3, -0.9, 1.4])
    net = model(*values.tolist())
    Slim(net, 0.7, penalty="polarization", t=1.3).loss().backward()

    def penalty(v: torch.Tensor) -> float:
        v = v.double().abs()
        return float(0.7 * (1.3 * v - (v - v.mean()).abs()).sum())

    steps = 1e-4 * torch.eye(4)
    slopes = [(penalty(values + step) - penalty(values - step)) / 2e-4 for step in steps]
    torch.testing.assert_close(net[1].weight.grad, torch.tensor(slopes), rtol=1e-3, atol=1e-3)


def test_the_proximal_step_stops_at_zero() -> None:
    net = model(0.5, -0.5, 0.05, -0.05, 0.0)
    Slim(net, 0.2).step(lr=0.5)
    torch.testing.assert_close(net[1].weight.detach(), torch.tensor([0.4, -0.4, 0.0, 0.0, 0.0]))


def test_polarization_parts_small_from_large() -> None:
    net = model(0.1, 0.2, 1.0, 1.1)
    penalty = Slim(net, 1.0, penalty="polarization", t=0.5)
    for _ in range(40):
        penalty.step(lr=0.01)
    weight = net[1].weight.detach()
    assert (weight[:2] == 0).all()
    assert (weight[2:] > 1.0).all()


OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_takes_the_step_after_its_own(name: str) -> None:
    net = model(0.5, 0.004)
    optimizer = OPTIMIZERS[name]([net[1].weight, net[0].weight])
    handle = slim(net, optimizer, strength=0.2)
    net[1].weight.grad = torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(net[1].weight.detach(), torch.tensor([0.48, 0.0]))
    handle.remove()
    optimizer.step()
    torch.testing.assert_close(net[1].weight.detach(), torch.tensor([0.48, 0.0]))


def test_each_group_has_its_learning_rate() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    groups = [{"params": [net[0].weight], "lr": 0.1}, {"params": [net[1].weight], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups)
    slim(net, optimizer, strength=1.0)
    optimizer.step()
    assert [layer.weight[0].item() for layer in net] == pytest.approx([0.9, 0.8, 1.0])


def test_layers_by_name() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(3)), nn.LayerNorm(2))
    assert list(Slim(net, 1.0).scales) == ["0", "1.0"]
    assert list(Slim(net, 1.0, layers=["1."]).scales) == ["1.0"]


def test_what_cannot_be_penalized_is_an_error() -> None:
    net = model(1.0)
    with pytest.raises(AnynormError, match="no batch or instance norm with a trainable γ"):
        Slim(nn.Linear(2, 2), 0.1)
    with pytest.raises(AnynormError, match="trains none of the model's γ"):
        slim(net, torch.optim.SGD([net[0].weight], lr=0.1))
    with pytest.raises(AnynormError, match=r"penalty='l2'; give one of l1, polarization"):
        Slim(net, 0.1, penalty="l2")
    with pytest.raises(AnynormError, match="must be 0 or more"):
        Slim(net, -1.0)
