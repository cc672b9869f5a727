"""Generalization: judged with its sign, at equal loss and at equal steps, by batch size."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import record

from anynorm.study.evidence import build


def run(norm: str, seed: int, gap: float, **cell: Any) -> dict[str, Any]:
    made = record(norm=norm, seed=seed, status="ok", **cell)
    losses = [2.3, 1.0, 0.3, 0.1]
    gap += 0.001 * seed
    made["evaluations"] = {
        "step": [0, 100, 200, 300],
        "train_loss": losses,
        "train_accuracy": [0.1, 0.6, 0.9, 0.97],
        "test_loss": losses,
        "test_accuracy": [0.1, 0.6 - gap / 3, 0.9 - gap / 2, 0.97 - gap],
    }
    return made


def claim(none: float, batch: float, *more: dict[str, Any]) -> dict[str, Any]:
    gaps = {"none": none, "batch": batch}
    records = [run(name, seed, gap) for name, gap in gaps.items() for seed in range(4)]
    [study] = build([*records, *more], title="", command="")["studies"]
    [found] = [c for c in study["claims"] if c["id"] == "generalization"]
    return found


@pytest.mark.parametrize(
    ("none", "batch", "status", "words"),
    [
        (0.05, 0.02, "shown", "smaller"),
        (0.02, 0.05, "contradicted", "larger"),
        (0.02, 0.02, "contradicted", "equal within 0.5 points"),
    ],
)
def test_the_status_has_a_sign(none: float, batch: float, status: str, words: str) -> None:
    found = claim(none, batch)
    assert found["status"] == status
    assert words in found["sentence"]
    assert f"At equal steps: {status}." in found["sentence"]
    assert len(found["comparisons"]) == 2


def test_batch_sizes_with_the_learning_rate_scaled_and_held() -> None:
    scaled = [run(name, 0, 0.03, batch=30, lr=0.05, steps=600) for name in ("none", "batch")]
    held = [run(name, 0, 0.04, batch=20, steps=900) for name in ("none", "batch")]
    captions = [table["caption"] for table in claim(0.05, 0.02, *scaled, *held)["tables"]]
    assert any("in proportion to the batch" in caption for caption in captions)
    assert any("the same learning rate" in caption for caption in captions)
