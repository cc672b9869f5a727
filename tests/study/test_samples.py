"""Scores of runs as samples, their comparisons, and the margin that verdict and claims share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from synthetic_records import record

from anynorm.study.evidence import build
from anynorm.study.inference import Comparison
from anynorm.study.samples import compare_scores, sample
from anynorm.study.selection import studies
from anynorm.study.spread import ACCURACY, LOSS
from anynorm.study.wording import change_interval, change_size, comparison_text


def runs(losses: Mapping[str, Sequence[float | None]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [
            record(norm=name, seed=seed, final={"test_loss": loss})
            for seed, loss in enumerate(values)
        ]
        for name, values in losses.items()
    }


def test_a_sample_keeps_seeds_and_censors_diverged_runs() -> None:
    records = [record(seed=4, final={"test_accuracy": 0.5}), record(seed=7, status="diverged")]
    found = sample("batch", records, ACCURACY)
    assert (found.values, found.seeds) == ((50.0, None), (4, 7))


def test_losses_are_compared_by_their_ratios_and_reported_in_per_cent() -> None:
    groups = runs({"none": [1.0, 2.0, 4.0], "batch": [0.5, 1.0, 2.0]})
    [found] = compare_scores(groups, "none", LOSS)
    assert found.difference == pytest.approx(50)
    assert (found.answer, found.quantity) == ("better", "held-out loss, %")
    [found] = compare_scores(groups, "batch", LOSS)
    assert found.difference == pytest.approx(-100)
    assert LOSS.opposite(-100) == pytest.approx(50)


def test_one_margin_holds_for_the_verdict_and_the_claims() -> None:
    accuracies = {"none": [0.900, 0.905, 0.902], "batch": [0.906, 0.901, 0.904]}
    modes = ("test_accuracy", "test_accuracy_recalibrated")
    records = [
        record(norm=name, seed=seed, probes=True, final=dict.fromkeys(modes, accuracy))
        for name, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    for margin, answer in ((0.1, "cannot tell"), (5.0, "equivalent")):
        [runs_] = studies(records, margin)
        assert runs_.score.equal_within == margin
        [study] = build(records, title="", command="", margin=margin)["studies"]
        claim = next(claim for claim in study["claims"] if claim["id"] == "base")
        for found in (study["verdict"]["comparisons"][0], claim["comparisons"][0]):
            assert (found["a"], found["answer"]) == ("batch", answer)


def test_a_regression_is_judged_with_the_margin_of_the_verdict() -> None:
    [runs_] = studies([record(task="regression", final={"test_loss": 1.0})])
    assert runs_.score.equal_within == 2.0


def test_words_for_differences() -> None:
    lost = Comparison("a", "b", "accuracy", "better", None, None, None, "")
    assert "diverged" in comparison_text(lost, ACCURACY)
    single = Comparison("a", "b", "accuracy", "cannot tell", 2.0, None, None, "")
    assert comparison_text(single, ACCURACY) == "+2.0 points"
    worse = Comparison("a", "b", "loss", "harmful", -2000.0, -3000.0, -20.0, "")
    assert comparison_text(worse, LOSS) == (
        "a loss 21 times higher (between 31 times higher and 20.0% higher)"
    )
    assert change_size(100.0, LOSS).endswith("times")  # a loss of zero
    assert change_interval(-0.04, 0.04, ACCURACY) == "between 0.0 and 0.0 points"
    assert math.isclose(LOSS.opposite(LOSS.opposite(30.0)), 30.0)
