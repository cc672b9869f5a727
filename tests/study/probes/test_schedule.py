from itertools import pairwise

import pytest

from anynorm.study.probes.schedule import Schedule


@pytest.mark.parametrize("steps", [1, 2, 5, 30, 150, 1500, 50_000])
def test_all_steps_are_within_the_run_and_in_order(steps):
    schedule = Schedule.of(steps)
    for due in (schedule.landscape, schedule.shift, schedule.flow, schedule.units):
        assert due
        assert list(due) == sorted(set(due))
        assert 0 <= due[0] <= due[-1] < steps


@pytest.mark.parametrize("steps", [150, 300, 1500])
def test_first_and_last_step_are_measured(steps):
    schedule = Schedule.of(steps)
    assert {0, steps - 1} <= set(schedule.landscape) & set(schedule.units)


def test_a_long_run_has_ten_early_landscapes_and_a_few_later():
    landscape = Schedule.of(5000).landscape
    assert len([step for step in landscape if step <= 100]) == 10
    assert len(landscape) == 13


@pytest.mark.parametrize("steps", [20, 150, 1000])
def test_shift_and_flow_share_the_landscapes_gradient(steps):
    schedule = Schedule.of(steps)
    assert set(schedule.shift) | set(schedule.flow) <= set(schedule.landscape)
    assert len(schedule.shift) <= 4


def test_units_are_sampled_evenly():
    units = Schedule.of(1901).units
    gaps = {later - earlier for earlier, later in pairwise(units)}
    assert gaps == {100}


@pytest.mark.parametrize("steps", [20, 50, 100, 200, 1000])
def test_short_runs_are_not_drowned_in_evaluations(steps):
    schedule = Schedule.of(steps)
    # Six gradients for a landscape, four for a shift beyond the shared one, a forward for units.
    passes = 6 * len(schedule.landscape) + 4 * len(schedule.shift) + len(schedule.units)
    assert passes <= 1.0 * steps + 30
