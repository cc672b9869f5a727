"""Alternation and the arithmetic of ratios, by a clock that only the calls move."""

import pytest

from anynorm.bench import timing
from anynorm.bench.timing import Budget, alternate, ratios, spread, turns


class Clock:
    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def call(self, name, seconds):
        def run():
            self.now += seconds
            self.log.append(name)

        return run


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_slow_calls_alternate_one_by_one(clock):
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", 3.0)}
    times = alternate(calls, Budget(seconds=0.0, fewest=4, most=9))
    assert times == {"a": [1.0] * 4, "b": [3.0] * 4}
    assert "".join(clock.log[4:]) == "abbaabba"  # after two calls each to warm up and to count


def test_fast_calls_are_repeated_and_rounds_end_with_the_budget(clock):
    times = alternate({"a": clock.call("a", 0.001)}, Budget(1.0, 2, 1000, per_round=0.0105))
    assert times["a"] == pytest.approx([0.001] * len(times["a"]))
    assert 90 <= len(times["a"]) <= 92  # rounds of ten, and one that does not count


def test_at_most_so_many_rounds(clock):
    assert len(alternate({"a": clock.call("a", 0.001)}, Budget(9.0, 2, 5))["a"]) == 5


def test_ratios_are_taken_round_by_round():
    times = {"ours": [1.0, 2.0, 4.0], "eager": [3.0, 4.0, 4.0]}
    assert ratios(times, "eager", "ours") == [3.0, 2.0, 1.0]
    assert spread(ratios(times, "eager", "ours")) == {"median": 2.0, "low": 1.5, "high": 2.5}


def test_another_stopwatch_is_used_throughout(clock):
    seen = []

    def seconds(call, count):
        seen.append(count)
        call()
        return 0.004

    times = alternate({"a": clock.call("a", 1.0)}, Budget(0.0, 2, 2, per_round=0.01), seconds)
    assert times == {"a": [0.004] * 2}
    assert seen == [1, 1, 2, 2]


def test_inputs_take_turns():
    seen = []
    call = turns([lambda: seen.append(0), lambda: seen.append(1), lambda: seen.append(2)])
    for _ in range(7):
        call()
    assert seen == [0, 1, 2, 0, 1, 2, 0]
