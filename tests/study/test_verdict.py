"""The verdict: what the seeds support and nothing more."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import record

from anynorm.study.ranking import null_probability, separated
from anynorm.study.selection import studies
from anynorm.study.spread import ACCURACY, spread
from anynorm.study.verdict import decide

Scores = dict[str, list[float | None]]


def decided(scores: Scores, **cell: Any) -> dict[str, Any]:
    """Return the verdict on runs with these held-out accuracies at one learning rate."""
    records = [
        record(
            norm=norm,
            seed=seed,
            status="diverged" if accuracy is None else "ok",
            final={"test_accuracy": accuracy, "train_loss": None if accuracy is None else 0.1},
            **cell,
        )
        for norm, accuracies in scores.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    [runs] = studies(records)
    return decide(runs)


def ranks(verdict: dict[str, Any]) -> dict[str, int]:
    return {entry["label"]: entry["rank"] for entry in verdict["ranking"]}


def test_one_normalizer_above_all_others_is_used() -> None:
    found = decided({"none": [0.8, 0.81, 0.82], "batch": [0.9, 0.91, 0.92]})
    assert (found["kind"], found["recommended"]) == ("use", "batch")
    assert found["headline"] == "Use batch"


def test_one_overlapping_seed_leaves_it_undecided() -> None:
    found = decided({"layer": [0.8, 0.81, 0.905], "batch": [0.9, 0.91, 0.92]})
    assert found["kind"] == "undecided"
    assert found["headline"] == "Undecided between batch and layer"


def test_equal_scores_are_not_separated() -> None:
    found = decided({"layer": [0.9, 0.9, 0.9], "batch": [0.9, 0.9, 0.9]})
    assert found["kind"] == "undecided"


def test_no_benefit_where_none_is_among_the_best() -> None:
    found = decided({"none": [0.9, 0.91, 0.92], "batch": [0.915, 0.93, 0.94]})
    assert (found["kind"], found["recommended"]) == ("no benefit", "none")


def test_no_benefit_names_what_did_worse() -> None:
    found = decided({"none": [0.9, 0.91, 0.92], "batch": [0.5, 0.6, 0.7]})
    assert found["kind"] == "no benefit"
    assert "batch did worse in every seed" in found["reason"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_are_always_undecided(seeds: int) -> None:
    found = decided({"none": [0.1, 0.11][:seeds], "batch": [0.99, 0.98][:seeds]})
    assert found["kind"] == "undecided"
    assert ranks(found) == {"none": 1, "batch": 1}


def test_too_few_seeds_are_no_evidence_of_no_benefit() -> None:
    assert decided({"none": [0.9], "batch": [0.9]})["kind"] == "undecided"


def test_a_diverged_run_counts_as_the_worst() -> None:
    found = decided({"layer": [0.8, 0.81, 0.82], "batch": [0.9, 0.91, None]})
    assert ranks(found) == {"layer": 1, "batch": 1}
    all_lost = decided({"layer": [0.8, 0.81, 0.82], "batch": [None, None, None]})
    assert all_lost["headline"] == "Use layer"
    assert all_lost["ranking"][-1]["label"] == "batch"


def test_one_normalizer_alone_is_undecided() -> None:
    assert decided({"batch": [0.9, 0.9, 0.9]})["kind"] == "undecided"


def test_the_learning_rate_is_chosen_by_training_loss_not_by_held_out_score() -> None:
    rates = {0.1: (0.05, 0.90), 0.3: (0.01, 0.85), 1.0: (0.5, 0.99)}
    records = [
        record(
            norm=norm,
            lr=lr,
            seed=seed,
            status="ok",
            final={"train_loss": loss, "test_accuracy": score},
        )
        for norm in ("none", "batch")
        for lr, (loss, score) in rates.items()
        for seed in range(3)
    ]
    [runs] = studies(records)
    assert {entry["lr"] for entry in decide(runs)["ranking"]} == {0.3}


def test_a_learning_rate_at_which_a_seed_diverged_is_not_chosen() -> None:
    records = [
        record(lr=lr, seed=seed, status=status, final={"train_loss": loss, "test_accuracy": 0.9})
        for lr, loss, lost in ((0.1, 0.5, None), (1.0, 0.01, 2))
        for seed in range(3)
        for status in ["diverged" if seed == lost else "ok"]
    ]
    records += [record(norm="none", seed=seed) for seed in range(3)]
    [runs] = studies(records)
    assert {e["label"]: e["lr"] for e in decide(runs)["ranking"]}["batch"] == 0.1


def test_a_rate_with_a_single_finished_seed_does_not_win_by_luck() -> None:
    records = [record(lr=0.1, seed=s, status="ok", final={"train_loss": 0.5}) for s in range(3)]
    records.append(record(lr=0.3, seed=0, status="ok", final={"train_loss": 0.001}))
    records += [record(norm="none", lr=0.1, seed=s, status="ok") for s in range(3)]
    [runs] = studies(records)
    assert {e["label"]: e["lr"] for e in decide(runs)["ranking"]}["batch"] == 0.1


def test_a_tie_is_broken_for_the_recommendation_by_learning_rate_tolerance() -> None:
    scores = {
        "layer": {0.1: 0.95, 0.3: 0.5, 1.0: 0.5},
        "batch": {0.1: 0.95, 0.3: 0.95, 1.0: 0.95},
    }
    records = [
        record(
            norm=norm,
            lr=lr,
            seed=seed,
            status="ok",
            final={"test_accuracy": score, "train_loss": 0.1 if lr == 0.1 else 1.0},
        )
        for norm, row in scores.items()
        for lr, score in row.items()
        for seed in range(3)
    ]
    [runs] = studies(records)
    found = decide(runs)
    assert ranks(found) == {"layer": 1, "batch": 1}
    assert found["recommended"] == "batch"
    assert "batch has a wider tolerance to the learning rate" in found["reason"]


def test_sentences_give_numbers_with_their_spread_and_the_chance() -> None:
    found = decided({"none": [0.8, 0.81, 0.82], "batch": [0.9, 0.91, 0.92]})
    text = " ".join(found["sentences"])
    assert "batch 91.0% [90.0, 92.0]" in text
    assert "with 3 seeds chance alone separates equals in 10% of comparisons, here of" in text
    assert "signific" not in text


def test_chance_of_one_seed_is_a_plain_number() -> None:
    text = " ".join(decided({"none": [0.8], "batch": [0.9]})["sentences"])
    assert "chance alone separates equals in 100% of comparisons, here of 1 pair." in text


@pytest.mark.parametrize(("n", "m", "expected"), [(3, 3, 0.1), (5, 5, 2 / 252), (2, 2, 1 / 3)])
def test_null_probability(n: int, m: int, expected: float) -> None:
    assert null_probability(n, m) == pytest.approx(expected)


def test_separation_is_one_sided() -> None:
    low = spread([0.1, 0.2, 0.3], higher_is_better=True)
    high = spread([0.4, 0.5, 0.6], higher_is_better=True)
    assert separated(high, low, ACCURACY)
    assert not separated(low, high, ACCURACY)
