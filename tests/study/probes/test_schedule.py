from itertools import pairwise

import numpy as np
import pytest

from anynorm.study.probes.schedule import Schedule


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5, 30, 150, 1500, 50_000])
def test_all_steps_are_within_the_run(steps, dense):
    schedule = Schedule.of(steps, 0, dense=dense)
    for due in (schedule.landscape, schedule.shift, schedule.flow, schedule.units):
        assert due
        assert 0 <= min(due) <= max(due) < steps
    assert sorted(set(schedule.units)) == list(schedule.units)


@pytest.mark.parametrize("steps", [150, 300, 1500])
def test_the_last_step_is_measured(steps):
    schedule = Schedule.of(steps, 0)
    assert steps - 1 in schedule.landscape
    assert {0, steps - 1} <= set(schedule.units)


@pytest.mark.parametrize("steps", [1, 7, 60, 101, 150, 5000])
def test_the_weights_stand_for_all_early_steps(steps):
    schedule = Schedule.of(steps, 3)
    for due in (schedule.landscape, schedule.shift, schedule.flow):
        assert sum(due.values()) == min(101, steps)
        assert all(weight == 0 for step, weight in due.items() if step > 100)


@pytest.mark.parametrize(("dense", "landscapes"), [(False, 16), (True, 51)])
def test_one_step_is_drawn_in_each_stratum(dense, landscapes):
    drawn = Schedule.of(5000, 0, dense=dense).landscape
    early = sorted(step for step in drawn if step <= 100)
    assert len(early) == landscapes
    ends = [101 * part // landscapes for part in range(landscapes + 1)]
    assert all(low <= step < high for step, (low, high) in zip(early, pairwise(ends), strict=True))


def test_a_seed_gives_the_same_steps_again_and_another_seed_others():
    assert Schedule.of(300, 1) == Schedule.of(300, 1)
    assert Schedule.of(300, 1) != Schedule.of(300, 2)


@pytest.mark.parametrize("part", ["landscape", "shift"])
def test_the_weighted_mean_of_the_drawn_steps_is_unbiased(part):
    values = np.exp(-np.arange(101) / 10)
    estimates = []
    for seed in range(2000):
        due = getattr(Schedule.of(101, seed), part)
        estimates.append(sum(weight * values[step] for step, weight in due.items()) / 101)
    # Four standard errors of the mean of these estimates.
    assert np.mean(estimates) == pytest.approx(values.mean(), abs=4 * np.std(estimates) / 2000**0.5)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("steps", [20, 150, 1000])
def test_shift_and_flow_share_the_landscapes_gradient(steps, dense):
    schedule = Schedule.of(steps, 0, dense=dense)
    assert set(schedule.shift) | set(schedule.flow) <= set(schedule.landscape)
    assert len(schedule.shift) <= 11


def test_units_are_sampled_evenly():
    units = Schedule.of(1901, 0).units
    gaps = {later - earlier for earlier, later in pairwise(units)}
    assert gaps == {100}


@pytest.mark.parametrize("steps", [20, 50, 100, 200, 1000])
def test_short_runs_are_not_drowned_in_evaluations(steps):
    schedule = Schedule.of(steps, 0)
    # Six gradients for a landscape, four for a shift beyond the shared one, a forward for units.
    passes = 6 * len(schedule.landscape) + 4 * len(schedule.shift) + len(schedule.units)
    assert passes <= 1.0 * steps + 30
