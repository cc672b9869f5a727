"""The curves of pruning: every way makes a network smaller, and the table shows what it loses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchmarks import prune_curves as curves

from anynorm.surgery import recalibrate
from anynorm.surgery.gammas import scales_of


@pytest.mark.parametrize("way", curves.WAYS)
def test_every_way_leaves_a_smaller_network(way: str) -> None:
    if way.startswith("Torch-Pruning"):
        pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    batches = [torch.randn(8, 1, 8, 8) for _ in range(2)]
    model = recalibrate(curves.NETWORKS["24-24-M-48-48, ReLU"](), batches).model.eval()
    for gamma in scales_of(model).values():
        torch.nn.init.uniform_(gamma)  # equal ones are not told apart
    small = curves.WAYS[way](model, 0.5, batches)
    left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
    assert 0.1 < left < 0.6
    assert small(batches[0]).shape == (8, 10)


def row(way: str, seed: int, accuracy: float) -> dict[str, Any]:
    sizes = {"parameters": 0.1, "flops": 0.2, "speed": 3.0}
    return {
        "network": "net",
        "seed": seed,
        "ratio": 0.8,
        "way": way,
        "control": 99.0,
        "accuracy": accuracy,
        **sizes,
    }


def test_the_table_has_what_is_lost() -> None:
    rows = [row("refit", seed, 99.0 - seed) for seed in range(3)] + [row("other", 0, 50.0)]
    words = curves.table(rows).splitlines()
    assert words[-1] == "| net | 80% | 1.0 (2.0) | 49.0 (49.0) | 10.0%, 20.0%, 3.00× |"
