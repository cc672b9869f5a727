import math
from functools import partial

import pytest
import torch
from torch import nn

from anynorm.study.probes import flow
from anynorm.study.probes.layers import weight_layers


def measured(probe, model, x, loss_fn):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    layers = weight_layers(model, x)
    return probe(partial(flow.measure, layers=layers), model, loss_fn, optimizer, x, None)


def test_a_product_of_scalars_has_ratios_one_over_the_squared_weight(probe):
    # L = w₁·w₂·w₃·x at x = 2: ∂L/∂w_l = L/w_l, so ρ_l = L/w_l².
    weights = [1.0, 10.0, 100.0]
    model = nn.Sequential(*(nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in weights))
    for layer, weight in zip(model, weights, strict=True):
        layer.weight.data.fill_(weight)
    found = measured(probe, model, torch.full((1, 1), 2.0).double(), lambda o, _: o.sum())
    assert found["ratio"] == pytest.approx([2000, 20, 0.2])
    assert found["max_over_min"] == pytest.approx(1e4)
    assert found["log_slope"] == pytest.approx(-2)


def test_biases_do_not_count(probe):
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    for layer in model:
        layer.weight.data.fill_(1.0)
        layer.bias.data.fill_(1e6)
    found = measured(probe, model, torch.ones(1, 1), lambda output, _: output.sum())
    # ∂L/∂w₂ is the first layer's output, 1 + 1e6.
    assert found["ratio"] == pytest.approx([1, 1e6 + 1])


def test_the_slope_is_the_least_squares_line(probe):
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    found = measured(probe, model, torch.randn(3, 4), lambda output, _: output.square().sum())
    x = torch.arange(5.0).double()
    y = torch.tensor(found["ratio"]).double().log10()
    line = torch.linalg.lstsq(torch.stack([x, torch.ones(5)], dim=1), y[:, None]).solution
    assert found["log_slope"] == pytest.approx(line[0].item(), rel=1e-6)


def test_one_layer_has_no_slope(probe):
    found = measured(probe, nn.Linear(2, 2), torch.randn(3, 2), lambda o, _: o.sum())
    assert math.isnan(found["log_slope"])
    assert found["max_over_min"] == 1
