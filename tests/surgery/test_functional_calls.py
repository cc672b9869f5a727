"""Functions that normalize, and arithmetic that does, are named by module and line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import anynorm
from anynorm.surgery.functional_calls import FunctionalCall, Watcher
from anynorm.surgery.recognized import find_on


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gain


def by_hand(x: Tensor, _: Tensor) -> Tensor:
    away = x - x.mean(-1, keepdim=True)
    return away / torch.sqrt(away.square().mean(-1, keepdim=True) + 1e-5)


def by_variance(x: Tensor, _: Tensor) -> Tensor:
    return (x - x.mean(-1, True)) * (x.var(-1, unbiased=False, keepdim=True) + 1e-5).rsqrt()


FUNCTIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str, type[nn.Module] | None]] = {
    "layer": (lambda x, g: F.layer_norm(x, (8,), g, g, 1e-3), "F.layer_norm", nn.LayerNorm),
    "layer without γ": (lambda x, _: F.layer_norm(x, [5, 8]), "F.layer_norm", nn.LayerNorm),
    "rms": (lambda x, g: F.rms_norm(x, (8,), weight=g, eps=1e-6), "F.rms_norm", nn.RMSNorm),
    "group": (lambda x, _: F.group_norm(x.mT, 4, eps=1e-4).mT, "F.group_norm", nn.GroupNorm),
    "batch": (lambda x, _: F.batch_norm(x.mT, None, None, training=True).mT, "F.batch_norm", None),
    "instance": (lambda x, _: F.instance_norm(x.mT).mT, "F.instance_norm", None),
    "rms by hand": (rms, "an RMS norm as arithmetic", nn.RMSNorm),
    "layer by hand": (by_hand, "a layer norm as arithmetic", nn.LayerNorm),
    "layer by variance": (by_variance, "a layer norm as arithmetic", nn.LayerNorm),
}


class Block(nn.Module):
    """A function of the values and a γ."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.gain, self.function = nn.Parameter(torch.rand(8) + 0.5), function
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.function(x, self.gain))
        return y


def seen(model: nn.Module, x: Tensor) -> list[FunctionalCall]:
    found: list[FunctionalCall] = []
    with Watcher(model, [], found.append):
        model(x)
    return found


@pytest.mark.parametrize("case", FUNCTIONS)
def test_calls_are_named_by_module_function_and_line(case: str) -> None:
    function, told, kind = FUNCTIONS[case]
    model = nn.Sequential(nn.Linear(8, 8), Block(function))
    x = torch.randn(4, 5, 8)
    [call] = seen(model, x)
    assert (call.owner, call.function) == ("1", told)
    first = inspect.getsourcelines(function)[1]
    file, _, line = call.line.partition(":")
    assert file == "test_functional_calls.py"
    assert first <= int(line) <= first + 3
    assert call.name == f"1 ({told}, {call.line})"
    assert (type(call.layer) if call.layer is not None else None) is kind


@pytest.mark.parametrize("case", [case for case, row in FUNCTIONS.items() if row[2] is not None])
def test_the_equal_layer_computes_the_same(case: str) -> None:
    model = Block(FUNCTIONS[case][0])
    [call] = seen(model, torch.randn(4, 5, 8))
    layer: Any = call.layer
    x = torch.randn(4, 8, 5) if case == "group" else torch.randn(4, 5, 8)
    right = model.function(x.mT if case == "group" else x, model.gain)
    found = layer(x).mT if case == "group" else layer(x)
    found = found * model.gain if case == "rms by hand" else found
    torch.testing.assert_close(found, right)


def test_layers_and_norms_of_weights_are_not_told() -> None:
    class Standardized(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            flat = self.weight.reshape(1, len(self.weight), -1)
            weight = F.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
            return F.conv2d(x, weight, self.bias)

    model = nn.Sequential(Standardized(3, 8, 1), nn.BatchNorm2d(8), nn.GroupNorm(2, 8))
    assert not find_on(model, torch.randn(2, 3, 4, 4)).functional
    ours = nn.Sequential(anynorm.LayerNorm(8), anynorm.RMSNorm(8), nn.LayerNorm(8))
    assert not find_on(ours, torch.randn(2, 8)).functional


def test_values_that_only_look_like_a_norm_are_not_told() -> None:
    def energy(x: Tensor, _: Tensor) -> Tensor:
        return x / x.pow(3).mean(-1, keepdim=True).sqrt() + x.square().sum(-1, True).sqrt()

    assert not seen(Block(energy), torch.rand(4, 5, 8) + 1)


def test_verbs_say_that_they_leave_them() -> None:
    model = nn.Sequential(nn.LayerNorm(8), Block(rms)).eval()
    x = torch.randn(4, 5, 8)
    for receipt in (anynorm.convert(model, "anynorm", x).receipt, anynorm.fold(model, x).receipt):
        [told] = [note for note in receipt.refused if "arithmetic" in note.layer]
        assert "called as a function and not as a layer" in told.text


def test_the_doctor_examines_them() -> None:
    data = [1e-5 * torch.randn(4, 5, 8) for _ in range(3)]
    found = anynorm.doctor(nn.Sequential(Block(rms)), data, checks=[31])
    [one] = found.findings
    assert one.layer.startswith("0 (an RMS norm as arithmetic, test_functional_calls.py:")
    assert one.fix.startswith("# change the call in test_functional_calls.py:")
    assert found.examined == (one.layer,)


def test_the_doctor_names_functions_that_it_does_not_examine() -> None:
    model = nn.Sequential(Block(FUNCTIONS["batch"][0]))
    found = anynorm.doctor(model, [torch.randn(4, 5, 8)] * 3, checks=[9])
    [(name, reason)] = found.not_examined.items()
    assert "F.batch_norm" in name
    assert "use a layer of torch.nn" in reason
    assert found.status == 3


def test_values_of_the_forward_are_not_kept() -> None:
    model, calls = Block(by_hand), []
    watcher = Watcher(model, [], lambda call: calls.append(call.name))
    with watcher:
        model(torch.randn(4, 5, 8))
    assert calls
    assert not watcher._parts
    [call] = find_on(model, torch.randn(4, 5, 8)).functional.values()
    assert call.x.is_meta
