"""Records whose scores the test decides; everything else about them is alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synthetic_records import record

from anynorm.study.selection import studies
from anynorm.study.verdict import decide

Scores = Mapping[str, Sequence[float | None]]


def made(norm: str, seed: int, accuracy: float | None, **changes: Any) -> dict[str, Any]:
    """Return a record with this held-out accuracy, in every mode; None is a run that diverged."""
    modes = ("", "_train_mode", "_recalibrated")
    final = {f"test_accuracy{mode}": accuracy for mode in modes}
    final |= {"train_loss": None if accuracy is None else 0.1} | changes.pop("final", {})
    status = "diverged" if accuracy is None else "ok"
    found = record(norm=norm, seed=seed, status=status, final=final, **changes)
    found["evaluations"] = {"step": [250, 300], "train_loss": [0.1, 0.1]}
    return found


def decided(scores: Scores, *, margin: float | None = None, **cell: Any) -> dict[str, Any]:
    """Return the verdict on runs with these held-out accuracies at one learning rate."""
    records = [
        made(norm, seed, accuracy, **cell)
        for norm, accuracies in scores.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    [runs] = studies(records, margin)
    return decide(runs)


def causes(verdict: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the causes of a verdict by name."""
    return {cause["name"]: cause for cause in verdict["causes"]}
