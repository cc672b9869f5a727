"""What fuse does not fuse, by name and with the reason; the model computes the same."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from surgery.models import lived
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import anynorm
from anynorm.surgery import fuse

IMAGE = (4, 3, 6, 6)


class Block(nn.Module):
    """A normalizer, an activation, and what `follow` does with them."""

    def __init__(self, follow: Callable[..., Tensor], phi: nn.Module | None = None) -> None:
        super().__init__()
        self.norm, self.act = nn.BatchNorm2d(3), phi or nn.ReLU()
        self.conv = nn.Conv2d(3, 3, 1)
        self.follow = follow

    def forward(self, x: Tensor) -> Tensor:
        return self.follow(self, self.conv(x))


class Options(nn.Module):
    """Is called with a number."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor, scale: float) -> Tensor:
        return F.relu(self.norm(x)) * scale


class Calls(nn.Module):
    def __init__(self, inner: nn.Module, *more: Any) -> None:
        super().__init__()
        self.inner, self.more = inner, more

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x, *self.more)
        return y


class Noting(nn.Sequential):
    """Does more than its forward when it is called."""

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = super().__call__(x)
        return y


class Deep(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.inner(x) + x)


class Further(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return super().forward(input).sin()


class Star(nn.Module):
    """Takes any number of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.relu(self.norm(inputs[0]))


class Keywords(Star):
    def forward(self, x: Tensor, **others: Any) -> Tensor:  # type: ignore[override]
        return super().forward(x + others["shift"])


def hooked(part: str) -> nn.Module:
    model = Block(lambda m, x: m.act(m.norm(x)))
    model.get_submodule(part).register_forward_hook(lambda *_: None)
    return model


def tied() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    return nn.Sequential(norm, nn.ReLU(), norm, nn.ReLU())


def replaced_forward() -> nn.Module:
    model = Block(by_mode)
    model.forward = MethodType(lambda m, x: m.act(m.norm(x)), model)  # type: ignore[method-assign]
    return nn.Sequential(model)


def traced() -> nn.Module:
    return torch.fx.symbolic_trace(Block(lambda m, x: F.relu(m.norm(x))))


def twice(m: Any, x: Tensor) -> Tensor:
    y = m.norm(x)
    z: Tensor = m.act(y) * y
    return z


def in_place(m: Any, x: Tensor) -> Tensor:
    y = x.clone()
    y += m.norm(x)
    return m.act(y)  # type: ignore[no-any-return]


def by_value(m: Any, x: Tensor) -> Tensor:
    return m.act(m.norm(x)) if x.sum() > -1e9 else x


def checkpointed(m: Any, x: Tensor) -> Tensor:
    y: Tensor = checkpoint(lambda x: m.act(m.norm(x)), x, use_reentrant=False)
    return y


def by_mode(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.act(m.norm(x))
    return y * 2 if m.training else y


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "unknown activation": (lambda: Block(lambda m, x: m.act(m.norm(x)), nn.Softplus()),
                           "no activation follows: its output goes to Softplus 'act'"),
    "another slope": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.LeakyReLU(0.2)),
                      "its output goes to LeakyReLU '1'"),
    "softmax": (lambda: Block(lambda m, x: m.norm(x).softmax(1)), "its output goes to softmax"),
    "used twice": (lambda: Block(twice), "its output has 2 uses: ReLU 'act', mul"),
    "called twice": (lambda: Block(lambda m, x: m.act(m.norm(m.act(m.norm(x))))),
                     "BatchNorm2d 'norm' is called 2 times, not once by Block"),
    "tied": (tied, "BatchNorm2d '0' is shared: '0', '2'"),
    "the output": (lambda: nn.Sequential(nn.BatchNorm2d(3)), "its output is that of the model"),
    "a sum": (lambda: Block(lambda m, x: m.norm(x) + x),
              "its sum with a residual goes to the output"),
    "in place": (lambda: Block(in_place), "its output is added to another value in place"),
    "broadcast": (lambda: Block(lambda m, x: m.act(m.norm(x) + x.mean((2, 3), keepdim=True))),
                  r"the residual is a tensor of shape \(4, 3, 1, 1\)"),
    "hook on the norm": (lambda: hooked("norm"), "BatchNorm2d 'norm' has hooks"),
    "hook on φ": (lambda: hooked("act"), "ReLU 'act' has hooks"),
    "control flow": (lambda: Block(by_value), "torch.fx cannot trace its forward: symbolically"),
    "modes": (lambda: Block(by_mode), "runs other operators in training than in evaluation"),
    "numbers": (lambda: Calls(Options(), 2.0),
                "relu stays in Options 'inner': its arguments are not always the same tensors"),
    "any arguments": (lambda: nn.Sequential(Star()), "Star '0': its arguments have no names"),
    "a shape": (lambda: Block(lambda m, x: F.relu(m.norm(x)) if x.shape[2] > 2 else x),
                "stays in Block: torch.fx cannot trace its forward: symbolically"),
    "another forward": (replaced_forward, "Block '0': its forward is not that of its class"),
    "a traced model": (traced, "the forward of a GraphModule is not that of its class"),
    "a call": (lambda: Deep(Noting(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))),
               "Noting 'inner' does more when it is called than its forward"),
    "a checkpoint": (lambda: Block(checkpointed), "torch.fx cannot trace its forward: it is in a"),
    "an activation behind a checkpoint": (
        lambda: Block(lambda m, x: F.relu(m.norm(checkpoint(m.conv, x, use_reentrant=False)))),
        "Block: torch.fx cannot trace its forward: it is in a checkpoint"),
    "a subclass": (lambda: nn.Sequential(Further(3), nn.ReLU()), "a subclass of BatchNorm2d"),
    "a residual in front": (lambda: Block(lambda m, x: m.conv(m.norm(x + x.sin()))),
                            "a residual is added in front of it"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_with_the_reason(name: str) -> None:
    make, reason = REFUSED[name]
    model, x = lived(make()), torch.randn(IMAGE)
    result = fuse(model, x)
    assert not result.receipt.changed
    assert not result.receipt.rolled_back
    note = result.receipt.refused[0]
    assert re.search(reason, note.text), note.text
    torch.testing.assert_close(result.model(x), model(x))


def test_what_is_not_fused_becomes_a_layer_of_anynorm_where_there_is_one() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4), nn.Linear(4, 4), Further(4))
    x = torch.randn(3, 4)
    result = fuse(lived(model[:3]), x)
    assert type(result.model[1]) is anynorm.RMSNorm
    assert result.receipt.facts["only converted"] == "1 of 1 others"
    assert [note.layer for note in result.receipt.refused] == ["1"]


def test_other_calls_of_a_shared_activation_stay() -> None:
    model = lived(Block(lambda m, x: m.act(m.conv(m.act(m.norm(x)))), nn.SiLU()))
    x = torch.randn(IMAGE)
    fused = fuse(model, x).sure()
    assert type(fused).__name__ == "FusedBlock"
    assert fused.norm.activation == "silu"
    assert type(fused.act) is nn.SiLU
    torch.testing.assert_close(fused(x), model(x))


def test_keywords_that_a_forward_does_not_name_are_passed_on() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Keywords()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x, shift=x.sin())
            return y

    model, x = lived(Outer()), torch.randn(IMAGE)
    fused = fuse(model, x).sure()
    assert type(fused.inner).__name__ == "FusedKeywords"
    torch.testing.assert_close(fused(x), model(x))


def test_modules_in_torchscript_stay_as_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Conv2d(3, 3, 1))
    model, x = nn.Sequential(scripted, nn.BatchNorm2d(3), nn.ReLU()).eval(), torch.randn(IMAGE)
    fused = fuse(model, x).sure()
    assert fused[1].activation == "relu"
    torch.testing.assert_close(fused(x), model(x))


def test_an_activation_that_is_called_from_outside_stays() -> None:
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Block(lambda m, x: m.act(m.norm(x)), nn.SiLU())

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner.act(self.inner(x) - 1)
            return y

    model, x = lived(Outside()), torch.randn(IMAGE)
    fused = fuse(model, x).sure()
    assert type(fused.inner).__name__ == "FusedBlock"
    torch.testing.assert_close(fused(x), model(x))


def test_a_forward_that_torch_fx_misreads_is_undone() -> None:
    def by_type(m: Any, x: Tensor) -> Tensor:
        return m.norm(x).sigmoid() if isinstance(x, Tensor) else F.relu(m.norm(x))

    model, x = lived(Block(by_type)), torch.randn(IMAGE)
    y = model(x)
    result = fuse(model, x, inplace=True)
    assert result.receipt.rolled_back
    assert type(result.model) is Block
    assert torch.equal(result.model(x), y)
