"""Graphs of models, with the names of their modules and state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery.graph import capture


class Twice(nn.Module):
    """A convolution and its batch norm, called twice, the second time with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = anynorm.BatchNorm2d(3, activation="relu")

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        z: Tensor = self.norm(self.conv(y), y)
        return z


def test_calls_of_a_module_with_what_goes_in_and_out() -> None:
    graph = capture(Twice().train(), torch.randn(2, 3, 4, 4))
    first, second = graph.calls["norm"]
    assert [node.name for node in first.inputs] == ["conv2d"]
    assert [node.name for node in second.inputs] == ["conv2d_1", first.outputs[0].name]
    assert [node.target for node in second.nodes][-1] == torch.ops.aten.relu.default
    assert len(graph.users["conv.weight"]) == 2
    assert graph.module_of(graph.users["conv.weight"][0]) == "conv"
    assert "norm.running_mean" in graph.users


def test_state_and_data_are_told_apart() -> None:
    graph = capture(Twice(), torch.randn(2, 3, 4, 4))
    conv = graph.users["conv.weight"][0]
    x, weight = conv.args[:2]
    assert (graph.state(x), graph.state(weight)) == (None, "conv.weight")
    assert (graph.is_data(x), graph.is_data(weight)) == (True, False)


def test_modes_stay_and_batches_of_other_forms_are_taken() -> None:
    model = Twice().train()
    for example in ({"x": torch.randn(2, 3, 4, 4)}, (torch.randn(2, 3, 4, 4), torch.zeros(2))):
        assert len(capture(model, example).calls["conv"]) == 2
    assert model.norm.training
    assert model.norm.num_batches_tracked == 0


def test_models_that_cannot_be_traced_are_an_error() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(AnynormError, match=r"cannot trace Branches.*must not depend on values"):
        capture(Branches(), torch.ones(3))
    with pytest.raises(AnynormError, match="calling Linear on a batch"):
        capture(nn.Linear(3, 2), torch.ones(4))
