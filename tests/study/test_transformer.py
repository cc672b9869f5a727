"""The character transformer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from anynorm.nn import Norm
from anynorm.study.cell import Cell
from anynorm.study.norm_argument import Norms
from anynorm.study.transformer import CharTransformer


def network(norm: str = "layer", placement: str = "pre", **options: Any) -> CharTransformer:
    torch.manual_seed(0)
    cell = Cell(
        subject="", data="", norm=norm, norm_options=tuple(options.items()), lr=1, steps=1, seed=0
    )
    return CharTransformer(12, 5, norm=Norms(cell).function(), placement=placement)


def norms_of(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Norm)]


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize(
    ("norm", "options"),
    [("none", {}), ("layer", {}), ("rms", {"qk": True}), ("group", {"groups": 4})],
)
def test_no_position_sees_a_later_one(norm: str, options: Any, placement: str) -> None:
    model = network(norm, placement, **options)
    x = torch.randint(5, (3, 12))
    changed = x.clone()
    changed[:, 7] = (x[:, 7] + 1) % 5
    before, after = model(x), model(changed)
    assert before.shape == (3, 12, 5)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_shorter_sequences_are_taken_too() -> None:
    model, x = network(), torch.randint(5, (3, 12))
    torch.testing.assert_close(model(x)[:, :5], model(x[:, :5]))


def test_pre_has_one_normalizer_more_than_post() -> None:
    assert len(norms_of(network("layer", "pre"))) == 9
    assert len(norms_of(network("layer", "post"))) == 8


def test_pre_leaves_the_residual_stream_alone_and_post_does_not() -> None:
    block = network("layer", "pre").blocks[0]
    for part in (block.attention.output, block.mlp[2]):
        nn.init.zeros_(part.weight)
    x = torch.randn(2, 12, 64)
    assert torch.equal(block(x), x)
    block.pre = False
    torch.testing.assert_close(block(x).std(dim=-1, correction=0), torch.ones(2, 12))


def test_qk_norm_bounds_the_attention_scores() -> None:
    plain, normed = network("rms"), network("rms", qk=True)
    assert len(norms_of(normed)) == len(norms_of(plain)) + 2 * 4
    x = torch.randint(5, (3, 12))
    for model, follows in ((plain, True), (normed, False)):
        attention = model.blocks[0].attention
        seen: list[torch.Tensor] = []
        attention.query_norm.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
        model(x)
        attention.inputs.weight.data *= 3
        model(x)
        ratio = (seen[1].norm() / seen[0].norm()).item()
        assert ratio == pytest.approx(3 if follows else 1, rel=1e-3)
