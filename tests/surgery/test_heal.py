"""Conversion with healing: the layers are fitted to the outputs that they had before."""

from __future__ import annotations

import copy
import sys
from functools import partial
from typing import Any

import pytest
import torch
from networks import NETWORKS, Again, network, prepared
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery import convert
from anynorm.surgery.distill import output_error
from anynorm.surgery.refitting import layer_fits, pairs

heal: Any = sys.modules["anynorm.surgery.refitting.heal"]


def inputs(x: Tensor, count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn((32, *x.shape[1:]), generator=generator) for _ in range(count)]


@pytest.mark.parametrize("to", ["group", "layer-over-channels", "rms", "dyt"])
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"rows"}))
def test_the_outputs_come_nearer_on_new_inputs(name: str, to: str) -> None:
    model, x = network(name)
    options: dict[str, Any] = {"groups": 1} if to == "group" else {}
    state = copy.deepcopy(model.state_dict())
    plain = convert(model, to, x, **options).model
    result = convert(model, to, x, heal=inputs(x), **options)
    held_out = [torch.randn(64, *x.shape[1:], generator=torch.Generator().manual_seed(4))]
    errors = [output_error(one, model, held_out) for one in (plain, result.model)]
    assert errors[1] < 0.7 * errors[0]
    assert "layers" in result.receipt.facts["healed"]
    assert all(value.equal(state[key]) for key, value in model.state_dict().items())
    assert result.model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_norm_goes_into_the_layer_in_front(name: str) -> None:
    model, x = network(name)
    model.train()
    result = convert(model, "none", x, heal=inputs(x), distill=5)
    count = sum(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())
    assert result.receipt.facts == {"folded": f"{count} of {count} layers, exactly"}
    assert all("folded into the" in note.text for note in result.receipt.changed)
    assert output_error(result.model, model, inputs(x)) < 1e-11
    assert all(layer.training for layer in result.model.modules())


def test_only_what_cannot_be_folded_is_fitted() -> None:
    """The first norm has ReLU in front and padding behind, where it is not exact at the borders."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6)),
        *(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(6 * 36, 4)),
    )
    batches = [torch.randn(64, 3, 8, 8) for _ in range(8)]
    for x in batches:
        model(x)
    result = convert(model.eval(), "none", batches[0], heal=batches)
    assert result.receipt.facts["folded"] == "1 of 2 layers, exactly"
    assert "2 layers" in result.receipt.facts["healed"]
    assert output_error(result.model, model, [torch.randn(64, 3, 8, 8)]) < 0.01
    alone = convert(model, "none", batches[0], layers="4", heal=batches)
    assert alone.receipt.facts == {"folded": "1 of 1 layers, exactly"}
    assert alone.receipt.difference is not None
    assert alone.receipt.difference.relative < 1e-5


def test_what_can_be_exact_is() -> None:
    """Layer norm of inputs without a mean is RMS norm, but for γ, β and the scale behind it."""
    torch.manual_seed(0)
    first = nn.Linear(6, 8)
    with torch.no_grad():
        first.weight -= first.weight.mean(0)
        first.bias -= first.bias.mean()
    model = nn.Sequential(first, nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[1].weight.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    batches = [torch.randn(50, 6) for _ in range(4)]
    result = convert(model, "rms", batches[0], source="layer", heal=batches)
    assert output_error(result.model, model, batches) < 1e-6
    broken = convert(model, "rms", batches[0], source="layer").model
    with torch.no_grad():
        broken[1].weight.mul_(3)  # type: ignore[union-attr, operator]
    assert output_error(broken, model, batches) > 0.1


def test_alpha_of_a_dynamic_tanh_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer norm of a vector and its negative is x / √(x² + ε): steep, then saturated."""
    first = nn.Linear(1, 2, bias=False)
    first.weight.data = torch.tensor([[1.0], [-1.0]])
    model = nn.Sequential(first, nn.LayerNorm(2, eps=0.25), nn.Linear(2, 3))
    batches = [torch.randn(200, 1, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    healed = partial(convert, model, "dyt", batches[0], heal=batches)
    found = healed().model
    error = output_error(found, model, batches)
    assert error < 1e-2
    assert found[1].alpha.item() not in (0.0, 0.5)
    ends = []
    for factor in (layer_fits._ALPHAS[0], layer_fits._ALPHAS[-1]):
        monkeypatch.setattr(layer_fits, "_ALPHAS", (factor,))
        ends.append(output_error(healed().model, model, batches))
    assert error < 0.5 * min(ends)


@pytest.mark.parametrize("to", ["rms", "dyt"])
@pytest.mark.parametrize("name", ["residual", "gated", "transposed", "again"])
def test_one_pass_and_a_pass_for_each_layer_give_the_same(
    name: str, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = prepared(Again, (4, 3, 8, 8)) if name == "again" else network(name)
    batches = [*inputs(x, 2), *(one[:15] for one in inputs(x, 2))]
    found = []
    for together, other in ((True, "_one_by_one"), (False, "heal_together")):
        with monkeypatch.context() as patched:
            patched.setattr(heal, "heals_together", lambda *_, together=together: together)
            patched.setattr(heal, other, None)
            found.append(convert(model, to, x, heal=batches).model.state_dict())
    assert all(value.equal(found[1][key]) for key, value in found[0].items())


@pytest.mark.parametrize("name", ["residual", "twice"])
def test_batches_wait_together_where_that_is_sound(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = network(name)
    calls: list[int] = []
    monkeypatch.setattr(heal, "heal_together", lambda *_: calls.append(1))
    convert(model, "rms", x, heal=inputs(x))
    assert bool(calls) == (name == "residual")
    again = convert(model, "group", x, groups=1).model
    convert(again, "batch", x, source="group", heal=inputs(x))  # its statistics start anew
    monkeypatch.setattr(pairs, "allowed", lambda *_: 1000.0)
    convert(model, "rms", x, heal=inputs(x))
    assert len(calls) <= 1


def test_a_part_of_the_layers_and_statistics_that_start_anew() -> None:
    model, x = network("concatenated")
    batches = inputs(x)
    grouped = convert(model, "group", x, groups=1).model
    result = convert(grouped, "batch", x, source="group", layers="one", heal=batches)
    assert [note.layer for note in result.receipt.changed] == ["one.1"]
    one, two = (result.model.get_submodule(name) for name in ("one.1", "two.1"))
    assert isinstance(two, nn.GroupNorm)
    assert isinstance(one, nn.modules.batchnorm._BatchNorm)
    assert int(one.num_batches_tracked) == len(batches)
    assert output_error(result.model, grouped, batches) < 0.05


def test_the_layers_around_an_attention_are_fitted() -> None:
    """Those inside of torch's are not seen, and keep their weights."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True).eval()
    with torch.no_grad():
        for norm in (model.norm1, model.norm2):
            norm.weight.uniform_(0.2, 3)
    batches = [3 + torch.randn(20, 6, 16) for _ in range(4)]
    options: dict[str, Any] = {"source": "layer", "layers": "norm2"}
    result = convert(model, "none", batches[0], heal=batches, **options)
    plain = convert(model, "none", batches[0], **options).model
    assert output_error(result.model, model, batches) < 0.5 * output_error(plain, model, batches)
    assert result.model.self_attn.in_proj_weight.equal(model.self_attn.in_proj_weight)
    assert not result.model.linear1.weight.equal(model.linear1.weight)


class Tied(nn.Module):
    """Outputs by the weight of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)
        self.hidden, self.out = nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(torch.relu(self.hidden(self.norm(self.embed(x)))))
        return y


def test_a_weight_that_is_an_embedding_too_stays() -> None:
    torch.manual_seed(0)
    model, batches = Tied(), [torch.randint(0, 9, (8, 5)) for _ in range(4)]
    result = convert(model, "rms", batches[0], source="layer", heal=batches)
    assert result.model.out.weight is result.model.embed.weight
    assert result.model.out.weight.equal(model.out.weight)
    assert not result.model.hidden.weight.equal(model.hidden.weight)


def test_distillation_does_not_make_it_worse() -> None:
    model, x = network("flattened")
    batches = inputs(x)
    healed = convert(model, "layer-over-channels", x, heal=batches)
    result = convert(model, "layer-over-channels", x, heal=batches, distill=20)
    assert "20 steps" in result.receipt.facts["distilled"]
    held_out = batches[::5]
    errors = [output_error(one.model, model, held_out) for one in (result, healed)]
    assert errors[0] <= errors[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heal": [X := torch.randn(4, 3, 8, 8)]}, "give an example"),
        ({"example": X, "distill": 5}, "give an example"),
        ({"example": X, "heal": [X[:1]]}, "at least two samples"),
        ({"example": X, "heal": [X], "distill": -1}, "a number of steps"),
        ({"example": X, "heal": [X.new_full(X.shape, torch.nan)]}, "not finite"),
        ({"example": X, "heal": []}, "no batches"),
    ],
)
def test_bad_inputs_are_refused_and_change_nothing(options: dict[str, Any], words: str) -> None:
    model, _ = network("flattened")
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(AnynormError, match=words):
        convert(model, "group", groups=1, inplace=True, **options)
    assert model.state_dict().keys() == state.keys()
    assert all(value.equal(state[key]) for key, value in model.state_dict().items())
