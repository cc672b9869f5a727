"""Tolerances: the decades over which the worst seed holds, and where to bisect them."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import record

from anynorm.study.selection import studies
from anynorm.study.tolerance import Refinement, refinements, tolerances, widths

GRID = (0.01, 0.03, 0.1, 0.3, 1.0)


def runs(scores: dict[str, dict[float, list[float | None]]], **cell: Any) -> list[dict[str, Any]]:
    """Return the records of a learning-rate sweep; a score of None is a diverged run."""
    return [
        record(
            norm=norm,
            lr=lr,
            seed=seed,
            status="diverged" if accuracy is None else "ok",
            final={"test_accuracy": accuracy},
            **cell,
        )
        for norm, row in scores.items()
        for lr, accuracies in row.items()
        for seed, accuracy in enumerate(accuracies)
    ]


def tolerance(scores: dict[str, dict[float, list[float | None]]]) -> dict[str, Any]:
    [found] = studies(runs(scores))
    return tolerances(found, "lr")


def row(*values: float | None) -> dict[float, list[float | None]]:
    return {lr: [value, value] for lr, value in zip(GRID, values, strict=True)}


def test_decades_of_the_values_that_hold() -> None:
    found = tolerance({"batch": row(0.5, 0.91, 0.95, 0.92, None)})["batch"]
    assert (found["low"], found["high"]) == (0.03, 0.3)
    assert found["decades"] == pytest.approx(1.0)
    assert not found["open_low"]
    assert not found["open_high"]


def test_the_worst_seed_decides() -> None:
    scores = row(0.95, 0.95, 0.95, 0.95, 0.95)
    scores[1.0] = [0.95, 0.6]
    scores[0.01] = [0.95, None]
    found = tolerance({"batch": scores})["batch"]
    assert (found["low"], found["high"]) == (0.03, 0.3)


def test_exactly_five_points_below_the_best_still_holds() -> None:
    assert tolerance({"batch": row(0.9, 0.91, 0.95, 0.899, 0.5)})["batch"]["low"] == 0.01


def test_the_best_is_that_of_all_normalizers() -> None:
    scores = {"batch": row(0.9, 0.9, 0.97, 0.9, 0.9), "none": row(0.1, 0.1, 0.1, 0.1, 0.1)}
    assert tolerance(scores)["none"]["decades"] is None


def test_an_interval_that_reaches_the_end_of_the_grid_is_open() -> None:
    found = tolerance({"batch": row(0.95, 0.95, 0.95, 0.5, 0.5)})["batch"]
    assert (found["open_low"], found["open_high"]) == (True, False)


def test_a_gap_ends_the_interval_and_the_longest_counts() -> None:
    found = tolerance({"batch": row(0.95, 0.5, 0.95, 0.95, 0.95)})["batch"]
    assert (found["low"], found["high"]) == (0.1, 1.0)


def test_everything_diverged_is_no_tolerance() -> None:
    assert tolerance({"batch": row(None, None, None, None, None)})["batch"]["decades"] is None


def test_one_value_is_no_sweep() -> None:
    assert tolerance({"batch": {0.1: [0.9, 0.9]}}) == {}


def test_a_regression_holds_up_to_twice_the_best_loss() -> None:
    losses = {0.01: 0.21, 0.03: 0.2, 0.1: 0.1, 0.3: 0.15}
    records = [
        record(lr=lr, task="regression", status="ok", final={"test_loss": loss})
        for lr, loss in losses.items()
    ]
    [found] = studies(records)
    assert tolerances(found, "lr")["batch"]["low"] == 0.03


def test_both_edges_are_bisected_with_all_seeds() -> None:
    found = refinements(runs({"batch": row(0.5, 0.91, 0.95, 0.92, None)}))
    assert [(one.label, one.lr, one.cell["seed"]) for one in found] == [
        ("batch", 0.017, 0),
        ("batch", 0.017, 1),
        ("batch", 0.55, 0),
        ("batch", 0.55, 1),
    ]
    assert all(isinstance(one, Refinement) and one.cell["lr"] == one.lr for one in found)


def test_bisection_ends_at_the_finest_step() -> None:
    records = runs({"batch": row(0.5, 0.91, 0.95, 0.92, None)})
    for _ in range(5):
        asked = refinements(records)
        if not asked:
            break
        records += [record(**{**one.cell, "norm": "batch"}, status="ok") for one in asked]
        for r in records:
            r["final"]["test_accuracy"] = r["final"]["test_accuracy"] or None
    assert not asked


def test_an_open_edge_and_a_sweep_that_nowhere_holds_ask_for_nothing() -> None:
    scores = {"batch": row(0.95, 0.95, 0.95, 0.95, 0.95), "none": row(0.1, 0.1, 0.1, 0.1, 0.1)}
    assert refinements(runs(scores)) == []


def test_a_finer_step_asks_for_more() -> None:
    scores = {"batch": {0.1: [0.95], 0.17: [0.95], 0.3: [None]}}
    assert refinements(runs(scores)) == []
    assert [one.lr for one in refinements(runs(scores), finest=0.1)] == [0.23]


def test_the_range_in_which_every_seed_trains_at_all() -> None:
    records = runs({"batch": row(0.5, 0.91, 0.95, 0.92, None)})
    for r in records:
        lr = r["cell"]["lr"]
        # A rate of 0.01 leaves the loss where it was.
        losses = [2.3] + [2.25 if lr == 0.01 else 0.5] * 20
        r["curve"] = {"step": list(range(21)), "train_loss": losses}
    [found] = studies(records)
    trains = tolerances(found, "lr")["batch"]["trains"]
    assert (trains["low"], trains["high"]) == (0.03, 0.3)
    assert [p["trained"] for p in tolerances(found, "lr")["batch"]["points"]] == [0, 2, 2, 2, 0]


def test_the_width_of_single_seeds_ends_where_the_score_crosses_the_limit() -> None:
    scores = {"batch": row(0.8, 0.95, 0.95, 0.95, None)}
    [found] = studies(runs(scores))
    # The limit of 0.9 is a third of the way down to 0.8; beyond 0.3 it is in the middle.
    low, high = 0.03 * (0.01 / 0.03) ** (1 / 3), 0.3 * (1.0 / 0.3) ** 0.5
    assert widths(found, "lr")["batch"] == {
        0: pytest.approx(high / low),
        1: pytest.approx(high / low),
    }


def test_a_seed_that_holds_nowhere_has_no_width() -> None:
    scores = {"batch": row(0.9, 0.9, 0.97, 0.9, 0.9), "none": row(0.1, 0.1, 0.1, 0.1, 0.1)}
    [found] = studies(runs(scores))
    assert widths(found, "lr")["none"] == {0: None, 1: None}
