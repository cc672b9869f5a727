"""How much outputs depend on layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery.refitting.sensitivity import sensitivities


def test_a_linear_model_has_its_jacobian() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    batches = [torch.randn(1000, 3) for _ in range(2)]
    found = sensitivities(model, batches, None, ["0.weight", "1.weight"], {}, None)
    with torch.no_grad():
        sizes = [model(x).square().mean() for x in batches]
    factor = sum(1000 / size for size in sizes)  # outputs count by their own size
    jacobian = model[1].weight.detach().double()
    assert torch.allclose(found["0.weight"][0], jacobian.square().sum(0) * factor, rtol=0.15)
    assert torch.allclose(found["1.weight"][0], torch.ones(5).double() * factor, rtol=0.15)


def test_layers_are_replaced_and_nothing_changes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    substitutes = {"2.weight": (torch.zeros(2, 3, 1, 1), torch.ones(2))}
    found = sensitivities(
        model, [torch.randn(4, 2, 3, 3)], None, ["0.weight", "2.weight"], substitutes, None
    )
    assert not found["0.weight"].any()
    assert found["2.weight"].all()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).detach()


def test_outputs_without_gradients_are_an_error() -> None:
    with pytest.raises(AnynormError, match="have no gradients"):
        sensitivities(Detached(), [torch.randn(4, 2)], None, ["layer.weight"], {}, None)
