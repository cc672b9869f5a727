"""The verdict: what the seeds support, what else was measured, and nothing more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from synthetic_records import record
from verdict_runs import decided, made

from anynorm.study.selection import studies
from anynorm.study.verdict import decide

NONE, BETTER = [0.80, 0.81, 0.82], [0.90, 0.91, 0.92]


def answers(verdict: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(c["a"], c["b"]): c["answer"] for c in verdict["comparisons"]}


def test_a_normalizer_that_is_better_than_none_is_used() -> None:
    found = decided({"none": NONE, "batch": BETTER})
    assert (found["kind"], found["recommended"], found["headline"]) == ("use", "batch", "Use batch")
    assert answers(found) == {("batch", "none"): "better"}
    assert "10.0 points higher" in found["recommendation"]


def test_what_is_worse_than_the_best_is_not_used() -> None:
    found = decided({"none": NONE, "layer": [0.85, 0.86, 0.845], "batch": BETTER})
    assert found["recommended"] == "batch"
    assert answers(found)["layer", "none"] == "better"
    assert answers(found)["layer", "batch"] == "harmful"
    assert [entry["rank"] for entry in found["ranking"]] == [1, 2, 3]


def test_on_a_tie_the_familiar_normalizer_goes_first() -> None:
    tied = {"none": NONE, "linf-batch": [0.901, 0.911, 0.922], "batch": BETTER, "rms": BETTER}
    assert decided(tied)["recommended"] == "batch"


def test_without_a_difference_nothing_is_claimed() -> None:
    found = decided({"none": [0.90, 0.93, 0.88], "batch": [0.91, 0.89, 0.94]})
    assert (found["kind"], found["recommended"]) == ("undecided", None)
    assert found["headline"] == "Cannot tell yet"
    [comparison] = found["comparisons"]
    assert comparison["answer"] == "cannot tell"
    assert comparison["not_excluded"] > 1
    assert comparison["seeds"] > 3
    assert f"{comparison['seeds']} seeds would decide" in found["recommendation"]


def test_no_benefit_is_said_only_where_it_was_shown() -> None:
    scores = {"none": [0.900, 0.901, 0.899], "batch": [0.9005, 0.8995, 0.9]}
    assert decided(scores)["kind"] == "no benefit"
    assert decided(scores)["recommended"] == "none"
    assert decided(scores, margin=0.01)["kind"] == "undecided"


def test_all_harmful_is_no_benefit_too() -> None:
    found = decided({"none": BETTER, "batch": NONE})
    assert (found["kind"], found["recommended"]) == ("no benefit", "none")
    assert "batch 10.0 points worse than none (between" in found["recommendation"]


def test_a_normalizer_that_saves_a_diverging_network_is_used() -> None:
    found = decided({"none": [None, None, None, 0.8], "batch": [*BETTER, 0.905]})
    assert found["recommended"] == "batch"
    assert "Held-out accuracy is higher" in found["recommendation"]


@pytest.mark.parametrize("scores", [{"none": [0.1], "batch": [0.99]}, {"batch": [0.9]}])
def test_one_seed_or_one_normalizer_decides_nothing(scores: dict[str, list[float | None]]) -> None:
    found = decided(scores)
    assert (found["kind"], found["recommended"]) == ("undecided", None)


def test_without_none_the_best_of_all_is_used() -> None:
    found = decided({"layer": NONE, "batch": BETTER})
    assert (found["kind"], found["recommended"]) == ("use", "batch")
    assert "better with batch than with any other" in found["recommendation"]


def tolerant(batch_rates: tuple[float, ...], none_rates: tuple[float, ...]) -> dict[str, Any]:
    """Return the verdict where both score alike, and each trains at some rates only."""
    records = [
        made(
            norm,
            seed,
            0.9 + 0.004 * seed if lr in rates else 0.5,
            lr=lr,
            final={"train_loss": loss},
        )
        for norm, rates in (("none", none_rates), ("batch", batch_rates))
        for lr in (0.03, 0.1, 0.3, 1.0)
        for seed in range(3)
        for loss in [0.1 if lr == 0.1 else 0.2]
    ]
    [runs] = studies(records)
    return decide(runs)


def test_what_trains_at_many_more_rates_is_preferred() -> None:
    found = tolerant((0.03, 0.1, 0.3, 1.0), (0.1,))
    assert (found["kind"], found["recommended"]) == ("prefer", "batch")
    assert (
        "learning rates from 0.03 to 1 (at least 33-fold), without normalization at 0.1 only"
        in found["recommendation"]
    )
    assert found["headline"] == "Use batch"


def test_a_step_of_the_grid_is_no_reason() -> None:
    assert tolerant((0.1, 0.3), (0.1, 0.3))["recommended"] is None


def test_a_batch_size_below_which_it_fails_is_a_limit() -> None:
    records = [made(n, s, v[s]) for n, v in (("none", NONE), ("batch", BETTER)) for s in range(3)]
    records += [
        made(
            "batch",
            seed,
            0.9 if size > 4 else 0.6,
            batch=size,
            lr=0.1 * size / 60,
            steps=18000 // size,
        )
        for size in (32, 16, 8, 4, 2)
        for seed in range(3)
    ]
    [runs] = studies(records)
    assert "Avoid batch below batch size 8." in decide(runs)["recommendation"]


def test_what_small_batches_cost_any_normalizer_is_no_limit() -> None:
    scores = {"none": NONE, "batch": BETTER, "group": BETTER}
    records = [made(n, s, v[s]) for n, v in scores.items() for s in range(3)]
    records += [
        made(norm, seed, 0.9 if size > 4 else 0.6, batch=size, lr=0.1 * size / 60)
        for norm in ("batch", "group")
        for size in (32, 16, 8, 4, 2)
        for seed in range(3)
    ]
    [runs] = studies(records)
    assert "Avoid" not in decide(runs)["recommendation"]


def test_the_error_is_divided_among_looks() -> None:
    records = [made(n, s, v[s]) for n, v in (("none", NONE), ("batch", BETTER)) for s in range(3)]
    [runs] = studies(records)
    once, often = (decide(runs, looks=looks)["comparisons"][0] for looks in (1, 6))
    assert often["low"] < once["low"] < once["high"] < often["high"]


def test_the_learning_rate_is_chosen_by_training_loss_not_by_held_out_score() -> None:
    rates = {0.1: (0.05, 0.90), 0.3: (0.01, 0.85), 1.0: (0.5, 0.99)}
    records = [
        made(norm, seed, score, lr=lr, final={"train_loss": loss})
        for norm in ("none", "batch")
        for lr, (loss, score) in rates.items()
        for seed in range(3)
    ]
    [runs] = studies(records)
    assert {entry["lr"] for entry in decide(runs)["ranking"]} == {0.3}


def test_a_learning_rate_at_which_a_seed_diverged_is_not_chosen() -> None:
    records = [
        made("batch", seed, None if seed == lost else 0.9, lr=lr, final={"train_loss": loss})
        for lr, loss, lost in ((0.1, 0.5, None), (1.0, 0.01, 2))
        for seed in range(3)
    ]
    records += [made("none", seed, 0.9) for seed in range(3)]
    [runs] = studies(records)
    assert {e["label"]: e["lr"] for e in decide(runs)["ranking"]}["batch"] == 0.1


def test_a_rate_with_a_single_finished_seed_does_not_win_by_luck() -> None:
    records = [made("batch", s, 0.9, lr=0.1, final={"train_loss": 0.5}) for s in range(3)]
    records.append(made("batch", 0, 0.9, lr=0.3, final={"train_loss": 0.001}))
    records += [made("none", s, 0.9, lr=0.1) for s in range(3)]
    [runs] = studies(records)
    assert {e["label"]: e["lr"] for e in decide(runs)["ranking"]}["batch"] == 0.1


def test_held_out_items_widen_the_interval() -> None:
    def with_items(right: str, norm: str, seed: int) -> dict[str, Any]:
        made_ = made(norm, seed, right.count("1") / len(right))
        return {**made_, "items": {"test_accuracy": right}}

    few = [with_items("1111111100", "none", s) for s in range(3)]
    few += [with_items("1111111111", "batch", s) for s in range(3)]
    [runs] = studies(few)
    found = decide(runs)
    assert found["comparisons"][0]["answer"] == "cannot tell"
    assert [cause["name"] for cause in found["causes"]] == ["too few held-out samples"]
    assert "10 held-out samples" in found["causes"][0]["sentence"]


def test_a_loss_is_compared_in_per_cent() -> None:
    records = [
        record(
            norm=norm,
            seed=seed,
            status="ok",
            task="regression",
            data="gaussian",
            final={"test_loss": loss * (1 + 0.01 * seed), "train_loss": 0.1},
        )
        for norm, loss in (("none", 2.0), ("batch", 1.0))
        for seed in range(3)
    ]
    [runs] = studies(records)
    found = decide(runs)
    assert found["unit"] == "%"
    assert found["comparisons"][0]["difference"] == pytest.approx(50.0, abs=0.1)
    assert "Held-out loss is 2.0 times lower (between" in found["recommendation"]


def test_the_verdict_is_plain_json() -> None:
    found = decided({"none": [None, 0.81, 0.82], "batch": BETTER, "layer": [0.9, None, None]})
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_learned_nothing_is_not_used() -> None:
    records = [
        made(n, s, v + 0.001 * s) for n, v in (("none", 0.1), ("batch", 0.2)) for s in range(3)
    ]
    for one in records:
        one["curve"] = {"step": [0, 300], "train_loss": [2.30, 2.30]}
        one["evaluations"] = {"step": [250, 300], "train_loss": [2.30, 2.30]}
    [runs] = studies(records)
    assert decide(runs)["recommended"] is None


def test_a_normalizer_with_one_seed_silences_no_other() -> None:
    found = decided({"none": NONE, "layer": [0.9], "batch": BETTER})
    assert found["recommended"] == "batch"
    assert answers(found)["layer", "none"] == "cannot tell"


def test_one_normalizer_alone_or_all_diverged_is_undecided() -> None:
    for scores in ({"batch": BETTER}, {"batch": [None] * 3, "layer": [None] * 3}):
        found = decided(scores)
        assert (found["kind"], found["headline"]) == ("undecided", "Cannot tell yet")


def test_a_better_mean_that_is_not_excluded_is_named() -> None:
    linf = [0.86, 0.78, 0.85]
    found = decided({"none": [0.70, 0.71, 0.72], "batch": [0.80, 0.82, 0.78], "linf-batch": linf})
    assert found["recommended"] == "batch"
    assert "Linf-batch may be up to" in found["recommendation"]
