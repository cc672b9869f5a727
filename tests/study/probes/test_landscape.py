import math

import pytest
import torch
from torch import nn

from anynorm.study.noise import DistributionNoise
from anynorm.study.probes import landscape

ETA = 0.1
A = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
THETA = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)


class Quadratic(nn.Module):
    """L(θ) = ½ θᵀAθ, whatever the input."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(THETA.clone())

    def forward(self, x):
        return 0.5 * self.theta @ A @ self.theta


def loss_of(theta):
    return (0.5 * theta @ A @ theta).item()


def own_output(output, _):
    return output


def measured(probe, optimizer_of, model=None):
    model = model or Quadratic()
    optimizer = optimizer_of(model.parameters())
    return probe(landscape.measure, model, own_output, optimizer, torch.zeros(1), None)


def test_a_quadratic_gives_its_closed_forms(probe):
    found = measured(probe, lambda p: torch.optim.SGD(p, ETA))
    g = A @ THETA
    points = [THETA - a * ETA * g for a in landscape.MULTIPLIERS]
    losses = [loss_of(theta) for theta in points]
    curvature = ((A @ g).norm() / g.norm()).item()
    # The gradient changes along the line by a·η·Ag: smallest at a = 1/2, largest at a = 4.
    distance = ETA * (A @ g).norm().item()
    cosines = [torch.cosine_similarity(A @ theta, g, dim=0).item() for theta in points]
    assert found == pytest.approx(
        {
            "loss": loss_of(THETA),
            "loss_low": min(losses),
            "loss_high": max(losses),
            "loss_range": max(losses) - min(losses),
            "log_ratio": math.log(max(losses) / loss_of(THETA)),
            "distance_low": distance / 2,
            "distance_high": distance * 4,
            "relative_distance": 4 * ETA * curvature,
            "cosine": min(cosines),
            "beta": curvature,
            "eta_beta": ETA * curvature,
        },
        rel=1e-12,
    )


def test_smoothness_is_the_steepest_change_of_the_gradient_on_the_line(probe):
    model = Quadratic()
    model.forward = lambda _: model.theta.pow(4).sum() / 4
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    found = probe(landscape.measure, model, own_output, optimizer, torch.zeros(1), None)
    g = THETA**3
    changes = [((THETA - a * 0.01 * g) ** 3 - g).norm().item() for a in landscape.MULTIPLIERS]
    slopes = [change / a for change, a in zip(changes, landscape.MULTIPLIERS, strict=True)]
    assert max(slopes) > 1.2 * min(slopes)
    assert found["beta"] == pytest.approx(max(slopes) / (0.01 * g.norm().item()), rel=1e-12)
    assert found["relative_distance"] == pytest.approx(max(changes) / g.norm().item(), rel=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, ETA, momentum=0.9),
        lambda p: torch.optim.SGD(p, ETA, weight_decay=0.5),
        lambda p: torch.optim.Adam(p, ETA),
    ],
)
def test_other_optimizers_are_also_measured_along_their_own_update(probe, make):
    model = Quadratic()
    optimizer = make(model.parameters())
    model(None).backward()
    optimizer.step()
    start = model.theta.detach().clone()
    found = measured(probe, lambda _: optimizer, model)

    optimizer.zero_grad()
    model(None).backward()
    optimizer.step()
    direction = model.theta.detach() - start
    losses = [loss_of(start + a * direction) for a in landscape.MULTIPLIERS]
    curvature = ((A @ direction).norm() / direction.norm()).item()
    length = (direction.norm() / (A @ start).norm()).item()
    assert found["update_loss_low"] == pytest.approx(min(losses), rel=1e-12)
    assert found["update_loss_high"] == pytest.approx(max(losses), rel=1e-12)
    assert found["update_beta"] == pytest.approx(curvature, rel=1e-9)
    assert found["update_eta_beta"] == pytest.approx(length * curvature, rel=1e-9)
    along_gradient = [loss_of(start - a * ETA * (A @ start)) for a in landscape.MULTIPLIERS]
    assert found["loss_high"] == pytest.approx(max(along_gradient), rel=1e-12)


def test_plain_descent_is_not_measured_twice(probe):
    found = measured(probe, lambda p: torch.optim.SGD(p, ETA))
    assert set(found) == {"loss", *landscape.KEYS}


def test_each_group_steps_at_its_own_rate_and_frozen_parameters_stay(probe):
    model = nn.Linear(2, 1, dtype=torch.float64)
    model.bias.requires_grad_(False)
    groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias], "lr": 9.0}]
    descent = probe(
        lambda objective: objective.descent,
        model,
        lambda output, _: output.sum(),
        torch.optim.SGD(groups, lr=0.0),
        torch.ones(1, 2, dtype=torch.float64),
        torch.zeros(1),
    )
    assert descent.tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    "layer",
    [nn.Dropout(0.5), nn.BatchNorm1d(6), DistributionNoise(seed=0), nn.RReLU()],
    ids=lambda layer: type(layer).__name__,
)
def test_random_layers_are_frozen_from_one_evaluation_to_the_next(probe, layer):
    model = nn.Sequential(nn.Linear(4, 6), layer, nn.Linear(6, 2))
    x, y = torch.randn(16, 4), torch.randint(0, 2, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    found = probe(landscape.measure, model, nn.CrossEntropyLoss(), optimizer, x, y)
    assert found["loss_range"] == 0
    assert found["distance_high"] == 0
    assert found["loss_low"] == found["loss"]


def test_an_overflowing_loss_is_reported_as_not_finite(probe):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30)
    x = torch.ones(2, 1)
    found = probe(landscape.measure, model, nn.MSELoss(), optimizer, x, x * 50)
    assert found["loss_high"] == math.inf
    assert not math.isfinite(found["loss_range"])
    assert math.isfinite(found["loss"])


def test_distances_of_gradients_too_large_to_square_in_float32(probe):
    model = Quadratic().float()
    model.forward = lambda _: 1e25 * (model.theta.square().sum() / 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-26)
    found = probe(landscape.measure, model, own_output, optimizer, torch.zeros(1), None)
    # L = ½·c·θ² has β = c everywhere.
    assert found["beta"] == pytest.approx(1e25, rel=1e-4)
    assert found["cosine"] == pytest.approx(1.0)
