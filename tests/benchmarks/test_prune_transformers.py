"""The benchmark of pruned transformers: a model of each family is cut, and the table shows it."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks import prune_transformers as benchmark


def row(way: str, seed: int, score: float) -> dict[str, Any]:
    sizes = {"parameters": 0.6, "flops": 0.5}
    common = {"model": "net, loss", "seed": seed, "what": "heads", "ratio": 0.3, "control": 1.0}
    return {**common, **sizes, "way": way, "score": score}


def test_the_table_has_the_median_of_each_way() -> None:
    rows = [row(way, seed, at + seed) for seed in range(3) for at, way in enumerate(benchmark.WAYS)]
    words = benchmark.table(rows).splitlines()
    assert words[-1] == "| net, loss | 30% of heads | 1 | 1 | 2 | 3 | 60% | 50% |"


@pytest.mark.slow
@pytest.mark.parametrize("name", benchmark.SUBJECTS)
def test_every_family_is_cut(name: str) -> None:
    pytest.importorskip("transformers")
    rows = benchmark.measure(name, 0, steps=2)
    assert {row["way"] for row in rows} == set(benchmark.WAYS)
    for what, ratios, _ in benchmark.CUTS:
        left = {row["ratio"]: row["parameters"] for row in rows if row["what"] == what}
        sizes = [1.0, *(left[ratio] for ratio in ratios)]
        assert sizes == sorted(set(sizes), reverse=True)
