"""Dynamic tanh, the layer without statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anynorm
from anynorm.errors import AnynormError, ShapeError


class Published(nn.Module):
    """The layer as in the paper's code."""

    def __init__(self, channels: int, channels_last: bool, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha, self.channels_last = nn.Parameter(torch.ones(1) * alpha), channels_last
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.alpha * x)
        if self.channels_last:
            return x * self.weight + self.bias
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def moved(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(0.5, 1.5)
    return layer


@pytest.mark.parametrize("layout", ["rows", "images", "channels_last"])
def test_values_and_gradients_are_those_of_the_paper(layout: str) -> None:
    first = layout != "rows"
    published, shape = moved(Published(6, not first)), (2, 6, 5, 3) if first else (2, 5, 6)
    ours = anynorm.DynamicTanh(6, channels_first=first)
    assert ours.alpha.item() == 0.5
    ours.load_state_dict(published.state_dict())
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x = torch.randn(shape).contiguous(memory_format=memory).requires_grad_()
    results = []
    for layer in (published, ours):
        y = layer(x)
        cotangent = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        inputs = [x, *layer.parameters()]
        results.append([y, *torch.autograd.grad(y, inputs, cotangent)])
    for theirs, own in zip(*results, strict=True):
        torch.testing.assert_close(own, theirs)
    assert results[1][0].is_contiguous(memory_format=memory)


def test_activation_residual_and_several_axes() -> None:
    layer = moved(anynorm.DynamicTanh((4, 6), activation="relu"))
    x, residual = torch.randn(2, 3, 4, 6)
    bent = layer.weight * torch.tanh(layer.alpha * x) + layer.bias
    torch.testing.assert_close(layer(x, residual), torch.relu(bent + residual))


@pytest.mark.parametrize(
    ("options", "names"),
    [({"elementwise_affine": False}, ["alpha"]), ({"bias": False}, ["alpha", "weight"])],
)
def test_parameters_that_are_left_out(options: dict[str, Any], names: list[str]) -> None:
    layer, x = anynorm.DynamicTanh(6, 0.7, **options), torch.randn(3, 6)
    assert list(layer.state_dict()) == names
    torch.testing.assert_close(layer(x), torch.tanh(0.7 * x))


def test_inputs_that_do_not_fit() -> None:
    for layer, shape in (
        (anynorm.DynamicTanh(6), (2, 6, 5)),
        (anynorm.DynamicTanh(6, channels_first=True), (2, 5, 6)),
    ):
        with pytest.raises(ShapeError, match=r"γ of shape \(6,\).*set channels_first="):
            layer(torch.randn(shape))
    with pytest.raises(AnynormError, match="alpha_init"):
        anynorm.DynamicTanh(6, float("nan"))


def test_it_is_a_leaf_of_fx_and_is_exported() -> None:
    model = nn.Sequential(anynorm.DynamicTanh(3, activation="relu", channels_first=True))
    nodes = torch.fx.symbolic_trace(model).graph.nodes
    assert [node.op for node in nodes] == ["placeholder", "call_module", "output"]
    shown = "DynamicTanh(3, alpha_init=0.5, channels_first=True, activation='relu')"
    assert repr(model[0]) == shown
    x = torch.randn(2, 3, 4)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
