"""Pruning of transformers by a refit: MLP units and attention heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anynorm.surgery import prune
from anynorm.surgery.prune import Plan, Pruned

transformers = pytest.importorskip("transformers")

WORDS = 40
Batches = list[dict[str, Tensor]] | list[Tensor]


def words(count: int = 4) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(WORDS, (8, 12), generator=generator)} for _ in range(count)]


def gpt2(attention: str) -> tuple[nn.Module, Batches]:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=WORDS,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention,
    )
    return transformers.GPT2LMHeadModel(config).eval(), words()


def outputs(model: nn.Module, batch: Any) -> Tensor:
    with torch.no_grad():
        found = model(**batch) if isinstance(batch, dict) else model(batch)
    logits: Tensor = found[0]
    return logits


def check_plan(model: nn.Module, result: Pruned[nn.Module], batches: Batches) -> None:
    fresh = result.plan.apply(model)
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(outputs(fresh, batches[0]), outputs(result.model, batches[0]))


def test_a_weight_of_inputs_by_outputs_is_cut_and_the_tied_embedding_stays() -> None:
    model, batches = gpt2("sdpa")
    result = prune(model, batches[0], ratio=0.4, refit=batches)
    assert {"transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_fc"} <= {
        note.layer for note in result.receipt.changed
    }
    for block in result.model.transformer.h:  # type: ignore[union-attr]
        up, down = block.mlp.c_fc, block.mlp.c_proj  # type: ignore[union-attr]
        assert up.nf == down.nx == up.weight.shape[1] == len(up.bias) == down.weight.shape[0] < 128
    check_plan(model, result, batches)
    small: Any = result.model
    assert small.lm_head.weight is small.transformer.wte.weight
    assert small.lm_head.weight.equal(model.lm_head.weight)  # type: ignore[union-attr, arg-type]


def llama(attention: str) -> tuple[nn.Module, Batches]:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        attn_implementation=attention,
    )
    return transformers.LlamaForCausalLM(config).eval(), words()


def vit(attention: str) -> tuple[nn.Module, Batches]:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_labels=5,
        attn_implementation=attention,
    )
    images = [torch.randn(16, 3, 16, 16) for _ in range(4)]
    return transformers.ViTForImageClassification(config).eval(), images


def silenced(model: Any, projection: str, heads: slice) -> None:
    """Let the output projection read nothing from some places."""
    with torch.no_grad():
        model.get_submodule(projection).weight[:, heads] = 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_head_that_nothing_reads_goes_with_its_queries_keys_and_values(attention: str) -> None:
    model, images = vit(attention)
    silenced(model, "vit.layers.1.attention.o_proj", slice(8, 16))
    result = prune(model, images[0], ratio=0.125, refit=images, ignore="*.mlp.*")  # of 8 heads
    layer = result.model.get_submodule("vit.layers.1.attention")
    for name in ("q_proj", "k_proj", "v_proj"):
        assert result.plan.cuts[f"vit.layers.1.attention.{name}.weight"] == {0: tuple(range(8, 16))}
        assert layer.get_submodule(name).out_features == 24
    assert layer.get_submodule("o_proj").in_features == 24
    assert torch.allclose(outputs(model, images[0]), outputs(result.model, images[0]), atol=1e-5)
    assert result.receipt.facts["cut"] == 8
    check_plan(model, result, images)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_heads_with_the_same_keys_go_together_and_positions_stay(attention: str) -> None:
    model, batches = llama(attention)
    silenced(model, "model.layers.0.self_attn.o_proj", slice(8, 16))
    result = prune(model, batches[0], ratio=0.05, refit=batches)  # 4 of 80 places
    cuts = {n.split(".")[-2]: axes for n, axes in result.plan.cuts.items() if "weight" in n}
    assert cuts == {
        "q_proj": {0: tuple(range(8, 16))},
        "k_proj": {0: tuple(range(4, 8))},
        "v_proj": {0: tuple(range(4, 8))},
        "o_proj": {1: tuple(range(8, 16))},
    }
    assert torch.allclose(outputs(model, batches[0]), outputs(result.model, batches[0]), atol=1e-5)
    check_plan(model, result, batches)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_size_by_which_a_module_splits_follows_its_heads(
    attention: str, tmp_path: Path
) -> None:
    model, batches = gpt2(attention)
    with torch.no_grad():
        model.get_parameter("transformer.h.0.attn.c_proj.weight")[8:16] = 0
    result = prune(model, batches[0], ratio=0.025, refit=batches)  # 8 of 320 places
    head = torch.arange(8, 16)
    assert result.plan.cuts["transformer.h.0.attn.c_attn.weight"] == {
        1: tuple(torch.cat([head, head + 32, head + 64]).tolist())
    }
    assert result.plan.numbers["transformer.h.0.attn"] == {"split_size": 24}
    small: Any = result.model
    assert small.transformer.h[0].attn.split_size == 24
    assert torch.allclose(outputs(model, batches[0]), outputs(small, batches[0]), atol=1e-5)
    check_plan(model, result, batches)
    result.plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == result.plan


class Attention(nn.Module):
    """Attention whose code has the number of heads."""

    def __init__(self, width: int | None) -> None:
        super().__init__()
        self.heads, self.width = 4, width
        self.qkv, self.out = nn.Linear(16, 96), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, 8).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(*parts.unbind(0)).transpose(1, 2)
        out: Tensor = self.out(y.reshape(*x.shape[:2], self.width or y[0, 0].numel()))
        return out


@pytest.mark.parametrize("width", [None, 32])
def test_the_number_of_heads_in_the_code_follows_them(width: int | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Attention(width), nn.LayerNorm(16), nn.Linear(16, 2)).eval()
    batches = [torch.randn(8, 5, 16) for _ in range(4)]
    with torch.no_grad():
        model[0].out.weight[:, 8:16] = 0  # type: ignore[union-attr, operator]
    result = prune(model, batches[0], ratio=0.25, refit=batches)
    numbers = {"heads": 3} if width is None else {"heads": 3, "width": 24}
    assert result.plan.numbers == {"0": numbers}
    assert torch.allclose(model(batches[0]), result.model(batches[0]), atol=1e-5)
    check_plan(model, result, batches)


def test_a_layer_keeps_a_head_and_the_receipt_says_why_the_residual_width_stays() -> None:
    model, batches = llama("sdpa")
    result = prune(model, batches[0], ratio=0.9, refit=batches)
    for layer in result.model.model.layers:  # type: ignore[union-attr]
        assert layer.self_attn.k_proj.out_features == 4  # type: ignore[union-attr]
        assert layer.self_attn.o_proj.weight.shape == (32, 8)  # type: ignore[union-attr]
    refused = {note.layer: note.text for note in result.receipt.refused}
    assert refused["model.layers.0.mlp.down_proj"] == "mean over channels"


class Encoder(nn.Module):
    """A block whose attention calls its layers inside one function."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.block(x))
        return y


def test_layers_whose_calls_a_refit_does_not_see_stay() -> None:
    torch.manual_seed(0)
    model, batches = Encoder().eval(), [torch.randn(8, 5, 16) for _ in range(4)]
    with torch.no_grad():  # the cheapest to cut
        model.block.self_attn.out_proj.weight.zero_()
    result = prune(model, batches[0], ratio=0.3, refit=batches)
    assert {note.layer for note in result.receipt.changed} == {"block.linear1"}
    refused = {note.layer: note.text for note in result.receipt.refused}
    assert "does not see the calls" in refused["block.self_attn.in_proj_weight"]
