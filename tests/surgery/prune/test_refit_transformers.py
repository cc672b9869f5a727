"""Pruning of transformers by a refit: MLP units and attention heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anynorm.surgery import prune
from anynorm.surgery.prune import Pruned

transformers = pytest.importorskip("transformers")

WORDS = 40
Batches = list[dict[str, Tensor]] | list[Tensor]


def words(count: int = 4) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(WORDS, (8, 12), generator=generator)} for _ in range(count)]


def gpt2(attention: str = "sdpa") -> tuple[nn.Module, Batches]:
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


def cut(model: nn.Module, batches: Batches, **options: Any) -> Pruned[nn.Module]:
    return prune(model, batches[0], ratio=0.4, refit=batches, **options)


def check_plan(model: nn.Module, result: Pruned[nn.Module], batches: Batches) -> None:
    fresh = result.plan.apply(model)
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(outputs(fresh, batches[0]), outputs(result.model, batches[0]))


def test_a_weight_of_inputs_by_outputs_is_cut_and_refitted() -> None:
    model, batches = gpt2()
    result = cut(model, batches)
    assert {"transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_fc"} <= {
        note.layer for note in result.receipt.changed
    }
    for block in result.model.transformer.h:  # type: ignore[union-attr]
        up, down = block.mlp.c_fc, block.mlp.c_proj  # type: ignore[union-attr]
        assert up.nf == down.nx == up.weight.shape[1] == len(up.bias) == down.weight.shape[0] < 128
    check_plan(model, result, batches)


def test_the_tied_embedding_stays() -> None:
    model, batches = gpt2()
    small: Any = cut(model, batches).model
    assert small.lm_head.weight is small.transformer.wte.weight
    assert small.lm_head.weight.equal(model.lm_head.weight)  # type: ignore[union-attr, arg-type]
