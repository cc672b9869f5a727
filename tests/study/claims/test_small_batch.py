"""Small batches: which of three causes makes the error rise."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import batch_sweep, record

from anynorm.study.claims.question import ask
from anynorm.study.claims.small_batch import QUESTIONS, batch_effects, parts
from anynorm.study.selection import studies
from anynorm.study.verdict.causes import recomputed

SEEDS = range(3)


def claim(records: list[dict[str, Any]], budget: str = "steps") -> dict[str, Any]:
    [runs] = studies(records)
    return ask(QUESTIONS[("epochs", "steps").index(budget)], runs)


def runs_at(size: int, evaluation: float, training: float, recomputed: float) -> Any:
    """Return runs of three seeds that differ a little, with these accuracies in the three modes."""
    values = {"test_accuracy": evaluation, "test_accuracy_train_mode": training}
    values |= {"test_accuracy_recalibrated": recomputed}
    return [
        record(
            norm="batch",
            batch=size,
            lr=0.1 * size / 60,
            seed=seed,
            final={key: value + 0.001 * seed for key, value in values.items()},
        )
        for seed in SEEDS
    ]


@pytest.fixture(name="reference")
def at_the_reference() -> Any:
    return runs_at(32, 0.98, 0.97, 0.98)


def test_what_recomputed_statistics_repair_was_lag(reference: Any) -> None:
    found = parts(runs_at(2, 0.58, 0.95, 0.97), reference)
    assert found.rise is not None
    assert found.rise.mean == pytest.approx(40)
    assert found.lagging is not None
    assert found.lagging.mean == pytest.approx(39)
    assert found.trains


def test_what_stays_is_left_over(reference: Any) -> None:
    found = parts(runs_at(2, 0.78, 0.8, 0.78), reference)
    assert found.remaining is not None
    assert (found.remaining.mean, found.trains) == (pytest.approx(20), True)


def test_lag_at_the_reference_is_not_taken_for_a_gain_of_the_small_batch() -> None:
    found = parts(runs_at(2, 0.75, 0.8, 0.77), runs_at(32, 0.76, 0.85, 0.85))
    assert found.rise is not None
    assert found.lagging is not None
    assert found.remaining is not None
    means = [part.mean for part in (found.rise, found.lagging, found.remaining)]
    assert means == pytest.approx([1, -7, 8])


def test_a_net_that_is_bad_in_every_mode_does_not_train(reference: Any) -> None:
    assert not parts(runs_at(2, 0.12, 0.3, 0.2), reference).trains


def test_half_way_from_a_guess_decides(reference: Any) -> None:
    coin = [{**r, "chance": 0.5} for r in reference]
    assert parts(runs_at(2, 0.7, 0.6, 0.7), reference).trains
    assert not parts(runs_at(2, 0.7, 0.6, 0.7), coin).trains


@pytest.mark.parametrize("budget", ["epochs", "steps"])
def test_each_sweep_is_shown_in_three_modes(budget: str) -> None:
    found = claim([*batch_sweep("epochs"), *batch_sweep("steps")], budget)
    titles = [panel["title"] for panel in found["figure"]["panels"]]
    modes = ("evaluation mode", "training mode", "recomputed statistics")
    assert titles == [f"error, {mode}, %" for mode in modes]
    assert f"From batch size 32 to 2 at equal {budget}" in found["sentence"]
    steps = {row[3] for row in found["tables"][1]["rows"]}
    assert steps == ({300} if budget == "steps" else {9000, 4500, 2250, 1125, 562, 300, 150})


def test_a_sweep_that_was_not_run_is_missing() -> None:
    assert claim(batch_sweep("steps"), "epochs")["missing"].startswith("only one batch size")


def test_the_sentence_names_the_cause() -> None:
    def sweep(norm: str, small: dict[str, float]) -> list[dict[str, Any]]:
        records = [r for r in batch_sweep("steps", (norm,)) if r["cell"]["batch"] in (2, 32, 60)]
        for r in records:
            names = ("test_accuracy", "test_accuracy_train_mode", "test_accuracy_recalibrated")
            usual = dict.fromkeys(names, 0.97)
            final = {**usual, **small} if r["cell"]["batch"] == 2 else usual
            r["final"] |= {key: v + 0.001 * r["cell"]["seed"] for key, v in final.items()}
        return records

    steady = sweep("group", {})
    lag = claim([*sweep("batch", {"test_accuracy": 0.6}), *steady])["sentence"]
    assert "from running statistics that lag" in lag
    assert "no noise in training" in lag
    noise = {"test_accuracy": 0.8, "test_accuracy_recalibrated": 0.8}
    assert (
        "more than group, so there is noise" in claim([*sweep("batch", noise), *steady])["sentence"]
    )
    late = claim([*sweep("batch", {"test_accuracy": 0.99}), *steady])["sentence"]
    assert "because running statistics lag less" in late
    nothing = {**noise, "test_accuracy": 0.1, "test_accuracy_train_mode": 0.2}
    nothing["test_accuracy_recalibrated"] = 0.2
    assert "does not train at all" in claim([*sweep("batch", nothing), *steady])["sentence"]


def test_where_nothing_trains_nothing_is_shown() -> None:
    records = [r for r in batch_sweep("steps") if r["cell"]["norm"] in ("batch", "group")]
    for r in records:
        small = r["cell"]["batch"] == 2
        guess = 0.1 if r["cell"]["norm"] == "batch" else 0.2
        for key in ("test_accuracy", "test_accuracy_train_mode", "test_accuracy_recalibrated"):
            r["final"][key] = (guess if small else 0.97) + 0.001 * r["cell"]["seed"]
    found = claim(records)
    assert "runs are too short" in found["sentence"]
    assert found["status"] == "cannot tell"
    assert found["comparisons"][0]["answer"] == "harmful"


def test_a_diverged_run_has_no_parts() -> None:
    records = batch_sweep("steps")
    lost = [
        record(**r["cell"], status="diverged")
        if r["cell"]["batch"] == 2 and r["cell"]["norm"] == "batch" and r["cell"]["seed"] == 0
        else r
        for r in records
    ]
    assert "batch diverged in 1 of 3 runs" in claim(lost)["sentence"]


def test_a_regression_is_compared_by_its_loss() -> None:
    records = [
        record(**{**r["cell"], "subject": "deep-linear"}, task="regression")
        for r in batch_sweep("epochs")
    ]
    found = claim(records, "epochs")
    assert [panel["title"] for panel in found["figure"]["panels"]] == ["held-out loss"]
    assert "a loss 4.9 times higher" in found["sentence"]


def test_the_effect_falls_back_to_equal_steps() -> None:
    [runs] = studies(batch_sweep("steps"))
    reference, effects = batch_effects(runs)
    assert reference == 32
    assert [point["value"] for point in effects["batch"]] == [2, 4, 8, 16, 32, 60, 120]


def test_the_effect_is_that_of_the_score_by_which_a_normalizer_is_judged() -> None:
    records = [
        *runs_at(2, 0.5, 0.5, 0.9),
        *runs_at(32, 0.9, 0.9, 0.95),
        *runs_at(60, 0.9, 0.9, 0.95),
    ]
    for size, r in zip((2, 32, 60), (records[:3], records[3:6], records[6:]), strict=True):
        for one in r:
            one["cell"]["steps"] = 300 * 60 // size
    [runs] = studies(records)
    for scores, rise in (({}, 40), ({"batch": recomputed(runs.score)}, 5)):
        _, effects = batch_effects(runs, scores)
        assert effects["batch"][0]["median"] == pytest.approx(rise)
