"""Folding γ and β of normalizers that take statistics from each input into what reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import anynorm
from anynorm.surgery import fold


class Rms(nn.Module):
    """An RMS norm of an unknown class; γ is w plus an offset."""

    def __init__(self, channels: int, offset: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(channels))
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        unit = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return unit * (self.scale + self.offset)


class Behind(nn.Module):
    """A normalizer, and a function of the module with what reads its output."""

    def __init__(
        self, norm: nn.Module, read: Callable[[Any, Tensor], Any], **parts: nn.Module | Tensor
    ) -> None:
        super().__init__()
        self.norm, self.read = norm, read
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, x: Tensor) -> Any:
        return self.read(self, self.norm(x))


def drawn(model: nn.Module) -> nn.Module:
    """The model in float64 and eval mode, with random γ and β."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    for norm in model.modules():
        if isinstance(norm, (Rms, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, anynorm.Norm)):
            for parameter in norm.parameters():
                values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.data = values
    return model


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    y = model(x)
    return [y] if isinstance(y, Tensor) else list(y)


def folded(model: nn.Module, *shape: int, count: int = 1) -> nn.Module:
    """Fold, compare on another input, and check that γ is 1, β is 0 and no name changed."""
    model = drawn(model)
    result = fold(model, torch.randn(shape, dtype=torch.float64), tolerance=1e-12)
    assert not result.receipt.rolled_back, str(result.receipt)
    assert len(result.receipt.changed) == count, str(result.receipt)
    assert not result.receipt.refused, str(result.receipt)
    x = torch.randn(shape, dtype=torch.float64)
    for one, other in zip(outputs(result.model, x), outputs(model, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for norm in result.model.modules():
        if isinstance(norm, Rms):
            assert (norm.scale + norm.offset == 1).all()
        elif isinstance(norm, (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)):
            assert (norm.weight == 1).all()
            assert getattr(norm, "bias", None) is None or not norm.bias.any()
    kept = {name for name in model.state_dict() if "BatchNorm" not in _kind(model, name)}
    assert kept <= set(result.model.state_dict())
    return result.model


def _kind(model: nn.Module, name: str) -> str:
    return type(model.get_submodule(name.rpartition(".")[0])).__name__


def refused(model: nn.Module, *shape: int) -> str:
    """Fold nothing, change nothing, and return the reason."""
    model = drawn(model)
    result = fold(model, torch.randn(shape, dtype=torch.float64))
    assert not result.receipt.changed
    for name, value in model.state_dict().items():
        assert torch.equal(result.model.state_dict()[name], value)
    assert list(model.state_dict()) == list(result.model.state_dict())
    [note] = result.receipt.refused
    return note.text


@pytest.mark.parametrize(
    "norm",
    [
        Rms(6),
        Rms(6, 1.0),
        nn.LayerNorm(6),
        nn.LayerNorm(6, bias=False),
        nn.RMSNorm(6),
        anynorm.RMSNorm(6),
        anynorm.create("gemma-rms", 6),
        anynorm.create("scale", 6),
    ],
    ids=lambda norm: f"{type(norm).__name__}-{len(list(norm.parameters()))}",
)
@pytest.mark.parametrize("bias", [True, False])
def test_every_linear_layer_that_reads_the_output(norm: nn.Module, bias: bool) -> None:
    def read(m: Any, y: Tensor) -> Tensor:
        return m.q(y) * m.k(y).sigmoid()

    model = Behind(norm, read, q=nn.Linear(6, 3, bias=bias), k=nn.Linear(6, 3, bias=bias))
    changed: Any = folded(model, 2, 5, 6)
    with_shift = bias or getattr(norm, "bias", None) is not None
    assert (changed.q.bias is not None) == with_shift


CHANNELS_LAST: dict[str, tuple[Callable[[Any, Tensor], Any], dict[str, Any]]] = {
    "a matrix product": (lambda m, y: y @ m.w, {"w": torch.randn(6, 3)}),
    "a transposed weight": (lambda m, y: y @ m.w.T + 1, {"w": torch.randn(3, 6)}),
    "addmm": (
        lambda m, y: torch.addmm(m.b, y.view(-1, 6), m.w),
        {"w": torch.randn(6, 3), "b": torch.randn(3)},
    ),
    "F.linear of a module's own weight": (lambda m, y: F.linear(y, m.w), {"w": torch.randn(3, 6)}),
    "one token": (lambda m, y: m.head(y[:, 0]), {"head": nn.Linear(6, 3)}),
    "the mean of the tokens": (lambda m, y: m.head(y.mean(1)), {"head": nn.Linear(6, 3)}),
    "heads": (
        lambda m, y: m.head(y.view(2, 5, 2, 3).transpose(1, 2).transpose(1, 2).reshape(2, 5, 6)),
        {"head": nn.Linear(6, 3)},
    ),
    "halves": (
        lambda m, y: [m.one(y.chunk(2, -1)[0]), m.two(y.chunk(2, -1)[1])],
        {"one": nn.Linear(3, 2), "two": nn.Linear(3, 2)},
    ),
    "parts of the tokens": (
        lambda m, y: sum(m.head(one).sum() for one in y.split([2, 3], 1)),
        {"head": nn.Linear(6, 3)},
    ),
    "one layer twice": (lambda m, y: m.head(y) + m.head(y.flip(1)), {"head": nn.Linear(6, 3)}),
}


@pytest.mark.parametrize("case", CHANNELS_LAST)
def test_ways_to_read_the_last_axis(case: str) -> None:
    read, parts = CHANNELS_LAST[case]
    folded(Behind(Rms(6), read, **parts), 2, 5, 6)


@pytest.mark.parametrize("case", ["one token", "the mean of the tokens", "addmm", "halves"])
def test_shifts_too(case: str) -> None:
    read, parts = CHANNELS_LAST[case]
    folded(Behind(nn.LayerNorm(6), read, **parts), 2, 5, 6)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups: int) -> None:
    conv = nn.Conv2d(6, 8, 3, groups=groups)
    folded(nn.Sequential(nn.GroupNorm(3, 6), conv), 2, 6, 5, 5)
    padded = nn.Conv2d(6, 8, 3, padding=1, groups=groups)
    norm = nn.GroupNorm(3, 6)
    assert "pads its input" in refused(nn.Sequential(norm, padded), 2, 6, 5, 5)
    norm.bias = None  # without β, zeros stay zeros
    folded(nn.Sequential(norm, padded), 2, 6, 5, 5)


def test_a_norm_that_is_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.norm(x)) + self.head(self.norm(2 * x + 1))
            return y

    folded(Twice(), 4, 6)


def test_two_norms_and_a_batch_norm_around_one_convolution() -> None:
    model = nn.Sequential(
        nn.GroupNorm(3, 6), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.GroupNorm(2, 6)
    )
    model.append(nn.Conv2d(6, 2, 1))
    folded(model, 2, 6, 5, 5, count=3)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "a residual": (Behind(Rms(6), lambda m, y: y + m.head(y), head=nn.Linear(6, 6)), "goes to add"),
    "the output": (nn.Sequential(Rms(6)), "goes to the model's output"),
    "an activation": (nn.Sequential(nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2)), "goes to relu"),
    "a product of data": (Behind(Rms(6), lambda m, y: y @ y.mT), "is computed, not a parameter"),
    "a weight that is computed": (
        Behind(Rms(6), lambda m, y: F.linear(y, m.w * 2), w=torch.randn(3, 6)),
        "is computed, not a parameter",
    ),
    "a weight that is read elsewhere": (
        Behind(Rms(6), lambda m, y: m.head(y) + m.head.weight.sum(), head=nn.Linear(6, 6)),
        "is used elsewhere too",
    ),
    "a mean over channels": (
        Behind(Rms(6), lambda m, y: m.head(y) + y.mean(-1, True), head=nn.Linear(6, 6)),
        "goes to a mean over channels",
    ),
    "two channels at one place": (
        Behind(Rms(6), lambda m, y: m.head(y.view(2, 10, 3)), head=nn.Linear(3, 3)),
        "not those over which",
    ),
    "no bias": (
        Behind(nn.LayerNorm(6), lambda m, y: y @ m.w, w=torch.randn(6, 3)),
        "no bias that could take β",
    ),
    "no γ": (nn.Sequential(nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 2)), "are none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case: str) -> None:
    model, told = REFUSED[case]
    reason = refused(model, 2, 5, 6)
    assert "takes its statistics from each input here; γ and β: " in reason
    assert told in reason


def test_tied_weights_and_hooks_are_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.norm = nn.Embedding(7, 6), Rms(6)
            self.head = nn.Linear(6, 7, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.norm(self.embedding(x)))
            return y

    model = drawn(Tied())
    [note] = fold(model, torch.arange(7)[None]).receipt.refused
    assert "shared by an Embedding and a Linear" in note.text
    hooked = nn.Sequential(Rms(6), nn.Linear(6, 2))
    hooked[0].register_forward_hook(lambda module, args, y: 2 * y)
    assert "has hooks" in refused(hooked, 4, 6)


def test_a_shared_gamma_is_refused() -> None:
    one, other = Rms(6), Rms(6)
    other.scale = one.scale
    model = drawn(nn.Sequential(one, nn.Linear(6, 6), other, nn.Linear(6, 6)))
    receipt = fold(model, torch.randn(4, 6, dtype=torch.float64)).receipt
    assert [note.layer for note in receipt.refused] == ["0", "2"]
    assert all("another module uses them too" in note.text for note in receipt.refused)


def test_weights_beyond_their_type_are_refused_and_nothing_is_written() -> None:
    model = nn.Sequential(nn.RMSNorm(6), nn.Linear(6, 2)).half().eval()
    model[0].weight.data.fill_(6e4)
    model[1].weight.data.fill_(1e4)
    result = fold(model, torch.randn(4, 6).half(), tolerance=None)
    [note] = result.receipt.refused
    assert "would not be finite" in note.text
    assert torch.equal(result.model[1].weight, model[1].weight)
    assert torch.equal(result.model[0].weight, model[0].weight)


class Lora(nn.Module):
    """A linear layer with a low-rank addition, as adapters wrap it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_a = nn.Linear(base.in_features, 2, bias=False)
        self.lora_b = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base_layer(x) + self.lora_b(self.lora_a(x))
        return y


def test_layers_with_low_rank_adapters_take_gamma_in_both_parts() -> None:
    model = folded(nn.Sequential(Rms(6), Lora(nn.Linear(6, 4))), 2, 5, 6)
    assert sorted(model[1].state_dict()) == [
        "base_layer.bias",
        "base_layer.weight",
        "lora_a.weight",
        "lora_b.weight",
    ]


class Quantized(nn.Module):
    """A linear layer whose weight is stored as integers."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randint(-127, 127, (4, 6), dtype=torch.int8)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", torch.full((4, 1), 0.01))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype))


def test_quantized_readers_are_refused_by_name() -> None:
    model = nn.Sequential(Rms(6), Quantized()).eval()
    model[0].scale.data.uniform_(0.5, 1)
    result = fold(model, torch.randn(2, 5, 6))
    [note] = result.receipt.refused
    assert "the weight of linear in '1' is computed, not a parameter" in note.text
    assert torch.equal(result.model[0].scale, model[0].scale)
