"""Speed of convergence: the common loss, steps to it, and runs that do not get there."""

from __future__ import annotations

import math
from typing import Any

import pytest
from synthetic_records import record, star

from anynorm.study.claims.convergence import convergence_ratios, loss_level
from anynorm.study.evidence import build
from anynorm.study.selection import studies


def run(norm: str, seed: int, decay: float, **cell: Any) -> dict[str, Any]:
    """Return a run whose loss falls from 2.3 to 0.1 with a rate of its own."""
    steps = range(300)
    losses = [0.1 + 2.2 * math.exp(-step * decay * (1 + 0.02 * seed)) for step in steps]
    made = record(norm=norm, seed=seed, status="ok", **cell)
    made["final"]["train_loss"] = losses[-1]
    return {**made, "curve": {"step": list(steps), "train_loss": losses}}


def runs(fast: float = 0.1, slow: float = 0.02, lr: float = 0.1) -> list[dict[str, Any]]:
    rates = {"none": slow, "batch": fast}
    return [run(name, seed, rate, lr=lr) for name, rate in rates.items() for seed in range(4)]


def claims(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    [study] = build(records, title="", command="")["studies"]
    return {claim["id"]: claim for claim in study["claims"]}


def test_the_level_is_above_the_largest_final_loss() -> None:
    [found] = studies(runs())
    level = loss_level(found.at_base())
    assert level == pytest.approx(1.1 * 0.106, rel=0.03)


def test_faster_training_is_shown_with_its_ratio() -> None:
    claim = claims(runs())["convergence"]
    assert claim["status"] == "shown"
    [found] = claim["comparisons"]
    assert math.exp(found["difference"]) == pytest.approx(5.0, rel=0.15)


def test_a_run_that_does_not_arrive_is_counted_as_the_slowest() -> None:
    records = runs()
    records[0]["curve"]["train_loss"] = [2.3] * 300  # one seed of none does not train
    claim = claims(records)["convergence"]
    columns, rows = claim["tables"][0]["columns"], claim["tables"][0]["rows"]
    none = dict(zip(columns, next(r for r in rows if r[0] == "none"), strict=True))
    assert (none["seeds"], none["not reached"], none["highest"]) == (4, 1, "not reached")


def test_a_normalizer_that_does_not_train_does_not_set_the_level() -> None:
    records = [*runs(), *(run("rms", seed, 1e-6, lr=0.1) for seed in range(4))]
    [found] = studies(records)
    level = loss_level(found.at_base())
    assert level is not None
    assert level < 0.2


def test_where_nothing_trains_nothing_is_measured() -> None:
    records = runs(fast=1e-6, slow=1e-6)
    assert "convergence" not in claims(records)
    [found] = studies(records)
    assert convergence_ratios(found) == {}


def test_each_normalizer_runs_at_its_own_learning_rate() -> None:
    # At a rate of 1 batch norm ends lower and gets there earlier; without it nothing is learned.
    records = runs(fast=0.01)
    records += [run("batch", seed, 0.3, lr=1.0) for seed in range(4)]
    records += [run("none", seed, 1e-6, lr=1.0) for seed in range(4)]
    [found] = studies(records)
    ratios = convergence_ratios(found)
    assert set(ratios) == {"batch"}
    assert ratios["batch"].answer == "better"
    table = claims(records)["convergence-own"]["tables"][0]
    rates = {row[0]: row[table["columns"].index("learning rate")] for row in table["rows"]}
    assert rates == {"none": 0.1, "batch": 1.0}


def test_ratios_of_a_whole_study_are_those_of_the_claim() -> None:
    records = star(("none", "batch", "layer"))
    [found] = studies(records)
    claim = claims(records)["convergence-own"]
    shown = [comparison.to_dict() for comparison in convergence_ratios(found).values()]
    assert shown == claim["comparisons"]
