"""Devices: their names, and how calls and inputs are timed on a GPU, which is a double here."""

import pytest
import torch
from gpu_double import MB

from anynorm.bench.comparison import resolve, sets
from anynorm.bench.timing import events, stopwatch, wall
from anynorm.errors import AnynormError


def test_names_of_devices(gpu):
    assert resolve("auto") == resolve("cuda") == "cuda:0"
    assert resolve("cuda:1") == "cuda:1"
    assert resolve("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "gpu", "cuda:", "auto:1"])
def test_devices_that_are_not_there(gpu, name):
    with pytest.raises(AnynormError, match="torch sees 2 CUDA devices"):
        resolve(name)


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve("auto") == "cpu"
    with pytest.raises(AnynormError, match="torch sees 0"):
        resolve("cuda")


def test_calls_on_a_gpu_are_timed_by_events(gpu):
    assert stopwatch("cuda:0") is events
    assert stopwatch("cpu") is wall
    assert events(gpu.call(3.0), 4) == pytest.approx(3e-3)
    assert gpu.log == ["call"] * 5  # the first does not count


def test_inputs_take_turns_until_they_fill_the_cache_twice(gpu):
    assert sets(30 * MB, "cuda:0") == 4
    assert sets(1000 * MB, "cuda:0") == 1
    assert sets(MB // 2, "cuda:0") == 1  # stays in the cache
    assert sets(30 * MB, "cpu") == 1
