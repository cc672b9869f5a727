"""Layer norms become RMS norms where what writes to the residual stream can be centred."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anynorm
from anynorm.surgery import Result, center


class Block(nn.Module):
    """A pre-norm block with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(self.up(self.norm(x)).tanh())
        return y


class Decoder(nn.Module):
    """Token and position embeddings, pre-norm blocks, a last norm and a head."""

    def __init__(self, width: int = 8, tied: bool = False) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, width), nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(self.blocks(self.tokens(x) * 3.0 + self.places))[:, -1])
        return y


class Vision(nn.Module):
    """Patches of an image and a class token, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.cls = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.block, self.norm, self.head = Block(8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        stream = torch.cat([self.cls.expand(len(x), -1, -1), patches], 1)
        y: Tensor = self.head(self.norm(self.block(stream))[:, 0])
        return y


IDS = torch.randint(0, 11, (3, 5))
IMAGES = torch.randn(2, 3, 6, 6, dtype=torch.float64)


def drawn(model: nn.Module) -> nn.Module:
    """The model in float64 and eval mode, with random γ and β."""
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.LayerNorm):
            for parameter in norm.parameters():
                parameter.data = torch.randn(parameter.shape, generator=generator)
    return model.double().eval()


def centred(model: nn.Module, x: Tensor) -> Result:
    model = drawn(model)
    state = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    result = center(model, x, tolerance=1e-12)
    assert not result.receipt.rolled_back
    assert {name: tuple(v.shape) for name, v in result.model.state_dict().items()} == state
    return result


@pytest.mark.parametrize(("make", "x", "count"), [(Decoder, IDS, 3), (Vision, IMAGES, 2)])
def test_all_layer_norms_of_a_pre_norm_model(make: Any, x: Tensor, count: int) -> None:
    result = centred(make(), x)
    assert len(result.receipt.changed) == count
    assert not result.receipt.refused
    norms = [m for m in result.model.modules() if isinstance(m, anynorm.Norm)]
    assert len(norms) == count
    assert not any(norm.spec.center for norm in norms)
    assert not any(isinstance(m, nn.LayerNorm) for m in result.model.modules())


def test_then_gamma_and_beta_are_folded() -> None:
    model = drawn(Decoder())
    root = center(model, IDS).model
    result = anynorm.fold(root, IDS, tolerance=1e-12)
    assert len(result.receipt.changed) == 3
    torch.testing.assert_close(result.model(IDS), model(IDS), rtol=1e-12, atol=1e-12)


def test_epsilon_and_parameters_stay() -> None:
    model = drawn(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, eps=0.1), nn.Linear(4, 2)))
    gain = model[1].weight.clone()
    new: Any = center(model, torch.randn(5, 3, dtype=torch.float64)).model[1]
    assert new.eps == 0.1
    assert torch.equal(new.weight, gain)
    plain = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, elementwise_affine=False)).eval()
    new = center(plain, torch.randn(5, 3)).model[1]
    assert new.weight is None
    assert new.bias is None


class Branches(nn.Module):
    """A stream that something else reads or writes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        stream = self.first(x)
        if self.kind == "activation":
            stream = stream.relu()
        if self.kind == "constant":
            stream = stream + 1
        if self.kind == "weight":
            stream = stream + self.first.weight.sum()
        y = self.last(self.norm(stream))
        if self.kind == "reader":
            y = y + self.last(stream)
        return (y, stream) if self.kind == "output" else y


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("activation", "relu writes to the residual stream"),
        ("constant", "adds a constant"),
        ("reader", "reads the residual stream as well, with its mean"),
        ("output", "the model's output reads the residual stream as well"),
        ("weight", "adds what has no channels"),
    ],
)
def test_refused_with_the_reason(kind: str, told: str) -> None:
    model = drawn(Branches(kind))
    result = center(model, torch.randn(5, 3, dtype=torch.float64))
    assert not result.receipt.changed
    [note] = result.receipt.refused
    assert note.layer == "norm"
    assert told in note.text
    for name, value in model.state_dict().items():
        assert torch.equal(result.model.state_dict()[name], value)


def test_tied_embeddings_and_post_norm_are_refused() -> None:
    result = center(drawn(Decoder(tied=True)), IDS)
    assert not result.receipt.changed
    assert all("shared by an Embedding and a Linear" in n.text for n in result.receipt.refused)

    class Post(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(3, 4), nn.LayerNorm(4)
            self.block, self.second = nn.Linear(4, 4), nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.first(x))
            y: Tensor = self.second(x + self.block(x))
            return y

    result = center(drawn(Post()), torch.randn(5, 3, dtype=torch.float64))
    assert [note.layer for note in result.receipt.changed] == ["norm"]
    [note] = result.receipt.refused
    assert "writes to the residual stream" in note.text


def test_models_without_layer_norm_say_what_they_have() -> None:
    receipt = center(nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4)), torch.randn(2, 3)).receipt
    assert "1 RMSNorm ('1'): it subtracts no mean" in str(receipt)
