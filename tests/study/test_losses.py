"""Smoothed training losses: the level that is reached, and runs that do not train."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_records import record

from anynorm.study.losses import guessing_loss, smoothed, trains
from anynorm.study.selection import studies


def run(losses: list[float | None], **cell: Any) -> dict[str, Any]:
    made = record(status="ok", **cell)
    return {**made, "curve": {"step": list(range(len(losses))), "train_loss": losses}}


def test_the_loss_is_the_mean_of_the_last_ten() -> None:
    curve = smoothed(run([float(x) for x in range(20)]))
    assert curve is not None
    assert curve.losses[0] == 0.0
    assert curve.losses[4] == 2.0
    assert curve.losses[-1] == pytest.approx(14.5)


def test_the_loss_must_stay_below_the_level() -> None:
    curve = smoothed(run([9.0] * 10 + [1.0] * 10 + [30.0] + [1.0] * 20))
    assert curve is not None
    first = next(step for step, loss in enumerate(curve.losses) if loss < 2.0)
    assert first < 20
    assert curve.steps_below(2.0) == 31
    assert curve.steps_below(0.5) is None
    assert curve.steps_below(100.0) == 1


def test_a_curve_ends_where_it_stops_being_finite() -> None:
    curve = smoothed(run([2.0, 1.0, None, 0.5]))
    assert curve is not None
    assert list(curve.steps) == [0, 1]
    assert smoothed(run([None])) is None
    assert smoothed({}) is None


def test_guessing_is_the_smallest_first_loss_at_the_base_scale() -> None:
    records = [
        run([2.5, 1.0], norm="none"),
        run([2.3, 1.0], norm="batch"),
        run([0.1, 0.1], norm="batch", init=10.0),
        run([2.6, 1.0], norm="batch", lr=1.0),
    ]
    [runs] = studies(records)
    assert guessing_loss(runs) == 2.3


@pytest.mark.parametrize(("last", "expected"), [(2.2, False), (2.0, True)])
def test_training_at_all_is_a_tenth_below_guessing(last: float, expected: bool) -> None:
    # A large initial loss that falls to the loss of guessing is no training.
    assert trains(run([500.0] + [last] * 20), 2.3) is expected


def test_a_diverged_run_does_not_train() -> None:
    assert not trains({**run([2.3] + [0.1] * 20), "status": "diverged"}, 2.3)
