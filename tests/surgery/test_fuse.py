"""Fusing activations and residuals into normalizers: the patterns, and that the model stays."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from surgery.models import BatchNormAct2d, lived
from torch import Tensor, nn
from torch.nn import functional as F

import anynorm
from anynorm.activations import ACTIVATIONS
from anynorm.surgery import fuse
from anynorm.surgery.fusing.training import training_step

IMAGE = (4, 3, 8, 8)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # float64: 1e5 roundings


class Basic(nn.Module):
    """As in torchvision: one ReLU in place for all, and a residual added in place."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1:
            short = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(short, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.layer1 = nn.Sequential(Basic(8, 8), Basic(8, 16, 2))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.relu(self.bn1(self.conv1(x))))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class RegNetBlock(nn.Module):
    """As in torchvision: the normalizer is two modules further inside than the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential()
        self.f.add_module("a", nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU()))
        self.f.add_module("c", nn.Sequential(nn.Conv2d(6, 3, 1), nn.BatchNorm2d(3)))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(x + self.f(x))
        return y


class Functional(nn.Module):
    """Calls functions and methods, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.norm = nn.GroupNorm(1, 3)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        y = torch.add(x, self.norm(x)).relu_()
        return y if other is None else y * other


class Mobile(nn.Module):
    """As in timm: the activation and an identity behind fused layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.last = nn.Conv2d(3, 3, 1), BatchNormAct2d(3), nn.BatchNorm2d(3)
        self.drop, self.act = nn.Identity(), nn.Hardswish(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        z: Tensor = self.act(self.drop(self.last(y)) + y)
        return z


class Repeated(nn.Module):
    """Applies one block twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.stem = Basic(3, 3), nn.Sequential(nn.BatchNorm2d(3), nn.ELU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(self.block(self.stem(x)))
        return y


def shared_act() -> nn.Module:
    act = nn.SiLU()
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), act, nn.Conv2d(3, 3, 1), act)


def sequential() -> nn.Module:
    mlp = [nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU(), nn.RMSNorm(6), nn.Tanh(), nn.Linear(6, 2)]
    layers = [nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.Mish(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *mlp)


MODELS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "resnet": (
        ResNet,
        [
            "bn1: relu",
            "layer1.0.bn1: relu; FusedBasic",
            "layer1.0.bn2: the residual and relu; FusedBasic",
            "layer1.1.bn1: relu; FusedBasic",
            "layer1.1.bn2: the residual and relu; FusedBasic",
        ],
    ),
    "regnet": (
        lambda: nn.Sequential(RegNetBlock(), RegNetBlock()),
        [f"{i}.{name}" for i in (0, 1) for name in (
            "f.a.1: relu", "f.c.1: the residual and relu; FusedRegNetBlock")],
    ),
    "functional": (
        lambda: nn.Sequential(Functional()),
        ["0.bn: relu; FusedFunctional", "0.norm: the residual and relu; FusedFunctional"],
    ),
    "mobile": (Mobile, ["bn: its silu", "last: the residual and hardswish; FusedMobile"]),
    "repeated": (
        Repeated,
        [
            "stem.0: elu",
            "block.bn1: relu; FusedBasic",
            "block.bn2: the residual and relu; FusedBasic",
        ],
    ),
    "shared": (shared_act, ["1: silu"]),
    "sequential": (sequential, ["1: mish", "7: gelu", "9: tanh"]),
}  # fmt: skip


def short(text: str) -> str:
    """A note without the classes of the layers."""
    what, _, block = text.partition("; ")
    words = what.partition(" with ")[2]
    return f"{words}; {block.split(' is a ')[1].split()[0]}" if block else words


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, list[str]]:
    torch.manual_seed(0)
    make, expected = MODELS[request.param]
    return lived(make()), expected


def test_every_pattern_is_found_and_the_model_stays(case: tuple[nn.Module, list[str]]) -> None:
    model, expected = case
    before = copy.deepcopy(model)
    result = fuse(model, torch.randn(IMAGE))
    notes = sorted(f"{note.layer}: {short(note.text)}" for note in result.receipt.changed)
    assert notes == sorted(expected)
    assert result.receipt.facts["in training"] == "compared in float64"
    assert not result.receipt.rolled_back
    assert repr(model) == repr(before)  # the original is not changed
    fused = result.model
    assert list(fused.state_dict()) == list(model.state_dict())
    assert [n for n, _ in fused.named_parameters()] == [n for n, _ in model.named_parameters()]
    x = torch.randn(2, 3, 12, 10)  # a shape unlike the example's
    torch.testing.assert_close(fused(x), model(x))


def test_a_training_step_stays(case: tuple[nn.Module, list[str]]) -> None:
    model, _ = case
    x = torch.randn(6, *IMAGE[1:])
    fused = fuse(model, torch.randn(IMAGE)).sure()
    # Outputs, gradients for random cotangents, running statistics; dropout draws the same masks.
    pair = [training_step(copy.deepcopy(one).double(), x, None) for one in (model, fused)]
    assert len(pair[0]) >= 2
    for one, other in zip(*pair, strict=True):
        torch.testing.assert_close(other, one, **CLOSE)


def test_states_load_both_ways_and_copies_compute_the_same(
    case: tuple[nn.Module, list[str]],
) -> None:
    model, _ = case
    x = torch.randn(IMAGE)
    fused = fuse(model, x).sure()
    other = copy.deepcopy(fused)
    with torch.no_grad():
        for tensor in (*other.parameters(), *(b for b in other.buffers() if b.is_floating_point())):
            tensor.uniform_(0.5, 1)
    file = io.BytesIO()
    torch.save(other.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file))
    torch.testing.assert_close(model(x), other(x))
    fused.load_state_dict(model.state_dict())
    torch.testing.assert_close(fused(x), other(x))
    for same in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert torch.equal(same(x), fused(x))
        assert [type(m) for m in same.modules()] == [type(m) for m in fused.modules()]


def test_a_fused_model_has_nothing_left_to_fuse(case: tuple[nn.Module, list[str]]) -> None:
    model, _ = case
    fused = fuse(model, torch.randn(IMAGE)).sure()
    again = fuse(fused, torch.randn(IMAGE))
    assert not again.receipt.changed
    assert repr(again.model) == repr(fused)


def test_a_fused_model_is_exported_and_compiled() -> None:
    model, x = (
        lived(nn.Sequential(Basic(3, 8, 2), nn.InstanceNorm2d(8), nn.SiLU())),
        torch.randn(IMAGE),
    )
    fused = fuse(model, x).sure()
    program = torch.export.export(fused, (x,)).module()
    torch.testing.assert_close(program(x), model(x))
    compiled = torch.compile(fused, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))
    torch.compiler.reset()


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "identity"])
def test_activations_are_known_by_what_they_compute(name: str) -> None:
    class Mine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ACTIVATIONS[name].forward(x)

    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), Mine())
    fused = fuse(model, torch.randn(5, 3)).sure()
    assert fused[1].activation == name
    assert type(fused[2]) is nn.Identity


def test_what_is_fused_can_be_folded(case: tuple[nn.Module, list[str]]) -> None:
    model, _ = case
    x = torch.randn(IMAGE)
    folded = anynorm.fold(fuse(model, x).sure().eval(), x)
    assert not folded.receipt.rolled_back
    torch.testing.assert_close(folded.model(x), model(x), rtol=1e-4, atol=1e-4)


def test_hooks_of_a_block_and_its_class_stay() -> None:
    model = lived(ResNet())
    seen: list[Tensor] = []
    model.layer1[0].register_forward_hook(lambda _, __, y: seen.append(y.clone()))
    x = torch.randn(IMAGE)
    fused = fuse(model, x).sure()
    seen.clear()
    model(x), fused(x)
    assert len(seen) == 2
    torch.testing.assert_close(*seen)
    assert isinstance(fused.layer1[0], Basic)
    assert type(fused.layer1[0]) is not Basic


def test_in_place_the_model_itself_changes() -> None:
    model, x = lived(ResNet()), torch.randn(IMAGE)
    parameters = list(model.parameters())
    assert fuse(model, x, inplace=True).model is model
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))


def test_only_the_layers_that_are_named() -> None:
    model = lived(ResNet())
    result = fuse(model, torch.randn(IMAGE), layers="layer1.0")
    assert {note.layer for note in result.receipt.changed} == {"layer1.0.bn1", "layer1.0.bn2"}
    assert type(result.model.bn1) is nn.BatchNorm2d
    with pytest.raises(anynorm.AnynormError, match="nothing"):
        fuse(model, torch.randn(IMAGE), layers="nothing")


def test_inputs_that_are_keywords() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.norm = Functional(), nn.BatchNorm2d(3)

        def forward(self, pixels: Tensor) -> dict[str, Any]:
            return {"y": self.block(x=pixels, other=self.norm(pixels))}

    model = lived(Named())
    result = fuse(model, {"pixels": torch.randn(IMAGE)})
    assert len(result.receipt.changed) == 2
    x = torch.randn(IMAGE)
    torch.testing.assert_close(result.model(x)["y"], model(x)["y"])


def test_a_batch_of_one_value_for_each_channel_is_not_compared_in_training() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU()).eval()
    facts = fuse(model, torch.randn(1, 3)).receipt.facts
    assert facts["in training"].startswith("not compared: Expected more than 1 value")
    assert facts["fused"] == "1 of 1 normalizers"
