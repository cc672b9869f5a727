"""Causes that stand in the records are named, with what to do."""

from __future__ import annotations

from typing import Any

from verdict_runs import causes, decided, made

from anynorm.study.selection import studies
from anynorm.study.verdict import decide

GOOD = [0.90, 0.91, 0.92]


def verdict(records: list[dict[str, Any]]) -> dict[str, Any]:
    [runs] = studies(records)
    return decide(runs)


def test_a_sound_study_has_no_causes() -> None:
    assert decided({"none": [0.8, 0.81, 0.82], "batch": GOOD})["causes"] == []


def lagging(norm: str) -> list[dict[str, Any]]:
    again = {"test_accuracy_recalibrated": 0.94, "test_accuracy_train_mode": 0.93}
    scores = {0: 0.65, 1: 0.80, 2: 0.91}
    return [made(norm, s, v, final={**again, "train_loss": 0.1}) for s, v in scores.items()]


def test_running_statistics_that_lag_are_named_and_recomputed_ones_compared() -> None:
    again = {"test_accuracy_recalibrated": 0.94, "test_accuracy_train_mode": 0.93}
    scores = {0: 0.65, 1: 0.70, 2: 0.68}
    records = [
        made("batch", s, v, final={**again, "test_accuracy_recalibrated": 0.94 + 0.001 * s})
        for s, v in scores.items()
    ]
    records += [made("group", s, 0.60 + 0.01 * s) for s in range(3)]
    found = verdict(records)
    cause = causes(found)["running statistics lag behind"]
    assert cause["normalizers"] == ["batch"]
    assert "68.0% with its running statistics and 94.1% with recomputed ones" in cause["sentence"]
    assert "anynorm.recalibrate" in cause["action"]
    assert found["recommended"] == "batch"
    assert found["comparisons"][0]["difference"] < -30
    assert "The running statistics of batch lag behind" in found["recommendation"]


def test_a_normalizer_without_running_statistics_cannot_lag() -> None:
    records = lagging("layer") + [made("none", s, v) for s, v in enumerate(GOOD)]
    assert "running statistics lag behind" not in causes(verdict(records))


def test_undertraining_says_how_fast_the_loss_still_falls() -> None:
    records = [made(n, s, v) for n in ("none", "batch") for s, v in enumerate(GOOD)]
    for one in records[3:]:
        one["evaluations"] = {"step": [250, 300], "train_loss": [0.5, 0.4]}
    cause = causes(verdict(records))["undertraining"]
    assert cause["normalizers"] == ["batch"]
    assert "from 0.5 to 0.4" in cause["sentence"]
    assert "0.2 per 100 steps" in cause["sentence"]
    assert cause["action"] == "Train longer: --steps 600."


def test_a_rate_at_the_edge_of_the_grid() -> None:
    records = [
        made(norm, seed, 0.9, lr=lr, final={"train_loss": 0.5 / lr if norm == "batch" else lr})
        for norm in ("none", "batch")
        for lr in (0.1, 0.3, 1.0)
        for seed in range(3)
    ]
    cause = causes(verdict(records))["learning rate at the edge of the grid"]
    assert cause["normalizers"] == ["none", "batch"]
    assert "none at 0.1 and batch at 1" in cause["sentence"]
    assert cause["action"] == "Try a wider range: --lrs 0.033 0.1 0.3 1 3."


def test_divergence_is_counted() -> None:
    found = decided({"none": [0.9, None, 0.9], "batch": GOOD})
    assert "none in 1 of 3 runs" in causes(found)["divergence"]["sentence"]


def test_all_runs_diverged() -> None:
    found = decided({"none": [None] * 3, "batch": [None] * 3})
    assert found["recommended"] is None
    assert found["recommendation"].startswith("Most runs of every normalizer diverged")


def test_one_seed() -> None:
    assert (
        "one seed" in causes(decided({"none": [0.9], "batch": [0.9]}))["too few seeds"]["sentence"]
    )


def test_constant_outputs_learn_nothing() -> None:
    records = [made(n, s, 0.1) for n in ("none", "batch") for s in range(3)]
    for one in records:
        one["curve"] = {"step": [0, 300], "train_loss": [2.30, 2.30]}
        one["evaluations"] = {"step": [250, 300], "train_loss": [2.30, 2.30]}
    assert causes(verdict(records))["nothing was learned"]["normalizers"] == ["none", "batch"]
