"""Devices: their names, and what is read of a GPU, which here is a double of torch's interface."""

import subprocess
import types

import pytest
import torch

from anynorm.bench import contestants, devices, measure, results
from anynorm.bench.cases import Case
from anynorm.bench.layers import inputs
from anynorm.bench.timing import Budget, wall
from anynorm.errors import AnynormError

MB = 1 << 20


class Gpu:
    """One stream: calls take time on it, events read it, memory grows and shrinks."""

    def __init__(self, monkeypatch):
        self.now, self.used, self.most, self.log = 0.0, 10 * MB, 50 * MB, []
        cuda = torch.cuda
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 2,
            "synchronize": lambda: self.log.append("synchronize"),
            "set_device": lambda device: self.log.append(device),
            "get_device_properties": lambda device: types.SimpleNamespace(
                name="A GPU", L2_cache_size=50 * MB, multi_processor_count=7, total_memory=8,
                major=9, minor=0,
            ),
            "reset_peak_memory_stats": lambda device: setattr(self, "most", self.used),
            "memory_allocated": lambda device: self.used,
            "max_memory_allocated": lambda device: self.most,
            "empty_cache": lambda: self.log.append("emptied"),
            "Event": lambda enable_timing: Event(self),
        }.items():  # fmt: skip
            monkeypatch.setattr(cuda, name, value)

    def call(self, milliseconds, megabytes=0):
        def run():
            self.now += milliseconds
            self.most = max(self.most, self.used + megabytes * MB)
            self.log.append("call")

        return run


class Event:
    def __init__(self, gpu):
        self.gpu, self.time, self.waited = gpu, None, False

    def record(self):
        self.time = self.gpu.now

    def tick(self):
        self.gpu.now += 10.0
        self.time = self.gpu.now

    def synchronize(self):
        self.waited = True

    def elapsed_time(self, end):
        assert end.waited  # else the time is not known yet
        return end.time - self.time


@pytest.fixture
def gpu(monkeypatch):
    return Gpu(monkeypatch)


def test_names_of_devices(gpu):
    assert devices.resolve("auto") == devices.resolve("cuda") == "cuda:0"
    assert devices.resolve("cuda:1") == "cuda:1"
    assert devices.resolve("cpu") == "cpu"


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "gpu", "cuda:", "auto:1"])
def test_devices_that_are_not_there(gpu, name):
    with pytest.raises(AnynormError, match="torch sees 2 CUDA devices"):
        devices.resolve(name)


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve("auto") == "cpu"
    with pytest.raises(AnynormError, match="torch sees 0"):
        devices.resolve("cuda")


def test_calls_on_a_gpu_are_timed_by_events(gpu):
    assert devices.stopwatch("cuda:0") is devices.events
    assert devices.stopwatch("cpu") is wall
    assert devices.events(gpu.call(3.0), 4) == pytest.approx(3e-3)
    assert gpu.log == ["call"] * 5  # the first does not count


def test_inputs_take_turns_until_they_fill_the_cache_twice(gpu):
    assert devices.sets(30 * MB, "cuda:0") == 4
    assert devices.sets(1000 * MB, "cuda:0") == 1
    assert devices.sets(MB // 2, "cuda:0") == 1  # stays in the cache
    assert devices.sets(30 * MB, "cpu") == 1


def test_peak_memory_is_what_a_call_adds(gpu):
    assert devices.peak(gpu.call(1.0, megabytes=7), "cuda:0") == 7 * MB
    assert devices.peak(gpu.call(1.0), "cpu") is None


def test_a_gpu_is_described(gpu, monkeypatch):
    done = types.SimpleNamespace(stdout="580.1\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    devices._driver.cache_clear()
    found = devices.hardware("cuda:1")
    devices._driver.cache_clear()
    assert (found["name"], found["capability"], found["driver"]) == ("A GPU", "9.0", "580.1")
    assert devices.hardware("cpu") is None


def test_health(gpu, monkeypatch):
    assert devices.healthy("cuda:0")

    def broken():
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    assert not devices.healthy("cuda:0")
    assert devices.healthy("cpu")


def test_only_a_gpu_is_adopted(gpu):
    devices.adopt("cpu")
    devices.adopt("cuda:1")
    assert gpu.log == ["cuda:1"]


def test_a_case_from_end_to_end(gpu, monkeypatch):
    """The tensors are a processor's; time, memory and turns are read as of a GPU."""
    case = Case("rms", "contiguous", (128, 4096), "bf16", "plain", "both")
    given = []

    def made(case, device):
        given.append(inputs(case))
        return given[-1]

    monkeypatch.setattr(measure, "inputs", made)
    monkeypatch.setattr(contestants, "_placed", lambda layer, *_: layer.to(torch.bfloat16))
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)  # it looks at the GPU, too
    monkeypatch.setattr(devices, "LEAST_TO_ROTATE", 1 << 10)
    monkeypatch.setattr(Event, "record", Event.tick)
    budget = Budget(seconds=0.0, fewest=2, most=2, per_round=0.02)
    (row,) = measure.measure([case], ("eager",), budget, "cuda:0")
    assert row["failed"] == {}
    assert len(given) == 2 * 50 * MB // case.nbytes
    assert row["us"]["ours"]["median"] == 5000.0  # rounds of two calls, a tick of 10 ms for each
    assert row["peak_bytes"] == {"ours": 0, "eager": 0}
    assert "emptied" in gpu.log


def test_results_name_the_gpu(gpu):
    assert results.about("default", {}, "cuda:0")["gpu"]["name"] == "A GPU"
