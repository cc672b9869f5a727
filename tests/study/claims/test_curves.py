"""Early means of drawn steps: weighted without bias, with the error of the drawing."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from synthetic_records import record

from anynorm.study.claims.curves import early_errors, early_values, probe
from anynorm.study.probes.schedule import Schedule

LOSS_RANGE = probe("landscape", "loss_range")


def drawn(schedule: dict[int, int], values: list[float], **cell: Any) -> dict[str, Any]:
    made = record(probes=True, status="ok", **cell)
    steps = [step for step in schedule if step <= 100]
    made["probes"]["landscape"] = {
        "step": steps,
        "weight": [schedule[step] for step in steps],
        "loss_range": [values[step] for step in steps],
    }
    return made


def noisy(rng: random.Random) -> list[float]:
    return [20 * math.exp(-step / 15) * rng.expovariate(1) for step in range(101)]


def test_the_mean_is_weighted_by_the_steps_that_a_value_stands_for() -> None:
    made = drawn({3: 10, 50: 30}, [float(step) for step in range(101)])
    assert early_values({"batch": [made]}, LOSS_RANGE) == {"batch": {0: (30 + 1500) / 40}}


def test_every_step_gives_the_mean_of_all_and_no_error() -> None:
    values = noisy(random.Random(0))
    made = drawn(dict.fromkeys(range(101), 1), values)
    assert early_values({"batch": [made]}, LOSS_RANGE)["batch"][0] == pytest.approx(
        sum(values) / 101
    )
    assert early_errors({"batch": [made]}, LOSS_RANGE) == {"batch": 0.0}


def test_the_standard_error_is_about_that_of_many_drawings() -> None:
    values = noisy(random.Random(1))
    means, errors = [], []
    for seed in range(400):
        made = drawn(dict(Schedule.of(101, seed).landscape), values)
        means.append(early_values({"batch": [made]}, LOSS_RANGE)["batch"][0] or 0.0)
        errors.append(early_errors({"batch": [made]}, LOSS_RANGE)["batch"])
    true = sum(values) / 101
    assert sum(means) / 400 == pytest.approx(true, rel=0.1)
    scatter = math.sqrt(sum((mean - true) ** 2 for mean in means) / 400)
    estimate = math.sqrt(sum(error**2 for error in errors) / 400)
    # Differences between strata hold the fall of the curve too, which overstates the error.
    assert scatter < 1.1 * estimate < 2.0 * scatter


def test_a_value_that_is_missing_makes_the_mean_the_worst() -> None:
    made = drawn({3: 10, 50: 30}, [1.0] * 101)
    made["probes"]["landscape"]["loss_range"][1] = None
    assert early_values({"batch": [made]}, LOSS_RANGE) == {"batch": {0: None}}
