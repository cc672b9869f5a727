"""Time limits of runs: what they follow from, and runs that exceed them on every engine."""

from __future__ import annotations

import math
import threading

import pytest
from engine_cells import built_in, cell

from anynorm.errors import AnynormError
from anynorm.study.engines.limits import FIRST_SECONDS, RUN_SECONDS, Limits
from anynorm.study.engines.slurm import _job
from anynorm.study.engines.versions import versions
from anynorm.study.engines.work import answer, attempt, attempt_within
from anynorm.study.store import Store


def test_until_a_run_has_finished_the_limit_is_long() -> None:
    limits = Limits()
    assert limits.of(built_in(0)) == FIRST_SECONDS
    assert "as long as no run has finished" in limits.why(FIRST_SECONDS)


def test_the_limit_follows_from_the_longest_run_and_never_from_less_than_a_minute() -> None:
    limits = Limits()
    limits.learn(built_in(0), 0.5)
    assert limits.of(built_in(1)) == 60
    limits.learn(built_in(2), 30.0)
    limits.learn(built_in(3), 5.0)
    assert limits.of(built_in(4)) == 600


def test_more_steps_larger_batches_and_probes_get_more_time_and_fewer_no_less() -> None:
    limits = Limits()
    limits.learn(built_in(0, steps=10, batch=8), 6.0)
    assert limits.of(built_in(0, steps=30, batch=8)) == 3 * 120
    assert limits.of(built_in(0, steps=10, batch=16)) == 2 * 120
    assert limits.of(built_in(0, steps=10, batch=8, probes=True)) == 2 * 120
    assert limits.of(built_in(0, steps=1, batch=1)) == 120


def test_a_given_limit_stays() -> None:
    limits = Limits(7.0)
    limits.learn(built_in(0), 1e4)
    assert limits.of(built_in(0)) == 7
    assert "the limit that was set" in limits.why(7.0)


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_limit_is_positive(seconds: float) -> None:
    with pytest.raises(AnynormError, match="must be positive"):
        Limits(seconds)


def test_without_a_limit_there_is_nothing_to_say() -> None:
    limits = Limits(math.inf)
    found = attempt_within(built_in(0), limits.of(built_in(0)), limits.why(math.inf))
    assert isinstance(found, dict)


def test_a_stored_record_says_how_long_it_took() -> None:
    record = attempt(built_in(0))
    assert isinstance(record, dict)
    limits = Limits()
    limits.learn_record({**record, "cost": {**record["cost"], RUN_SECONDS: 100.0}})
    assert limits.of(built_in(1)) == 2000
    for value in (None, "long", math.nan, -1.0):
        limits = Limits()
        limits.learn_record({**record, "cost": {RUN_SECONDS: value}})
        assert limits.of(built_in(1)) == FIRST_SECONDS
    assert 0 < record["cost"][RUN_SECONDS] < 1000


def test_a_job_goes_on_after_a_run_that_never_returns(store: Store) -> None:
    cells = [cell("waits"), cell("well")]
    described = [(cells[0].to_dict(), 0.5, "late"), (cells[1].to_dict(), 600.0, "late")]
    assert _job(described, store, versions()) == ["late", None]
    assert store.present() == {cells[1].key}


def test_a_task_that_never_returns_answers_and_ends_its_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("anynorm.study.engines.work._SECONDS_TO_ANSWER", 0.0)
    monkeypatch.setattr("os._exit", ended.append)
    assert answer(cell("waits").to_dict(), versions(), 0.5, "late") == ("failed", "late")
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    assert ended == [1]
