"""A double of torch's interface to a GPU: one stream, on which calls take time and memory."""

import types

import pytest
import torch

__all__ = ["MB", "Event", "Gpu", "gpu"]

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
