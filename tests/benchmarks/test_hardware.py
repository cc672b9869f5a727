"""What is read of a GPU, which here is a double of torch's interface, and how a process is set."""

import subprocess
import types

import torch
from benchmarks import hardware
from benchmarks.process import adopt
from benchmarks.result_files import about
from benchmarks.speed import contestants
from benchmarks.speed.measure import measure
from gpu_double import MB, Event

from anynorm.bench import comparison, layers
from anynorm.bench.cases import Case
from anynorm.bench.layers import inputs
from anynorm.bench.timing import Budget


def test_peak_memory_is_what_a_call_adds(gpu):
    assert hardware.peak(gpu.call(1.0, megabytes=7), "cuda:0") == 7 * MB
    assert hardware.peak(gpu.call(1.0), "cpu") is None


def test_a_gpu_is_described(gpu, monkeypatch):
    done = types.SimpleNamespace(stdout="580.1\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    hardware._driver.cache_clear()
    found = hardware.hardware("cuda:1")
    hardware._driver.cache_clear()
    assert (found["name"], found["capability"], found["driver"]) == ("A GPU", "9.0", "580.1")
    assert hardware.hardware("cpu") is None


def test_health(gpu, monkeypatch):
    assert hardware.healthy("cuda:0")

    def broken():
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    assert not hardware.healthy("cuda:0")
    assert hardware.healthy("cpu")


def test_only_a_gpu_is_adopted(gpu):
    adopt("cpu")
    adopt("cuda:1")
    assert gpu.log == ["cuda:1"]


def test_a_case_from_end_to_end(gpu, monkeypatch):
    """The tensors are a processor's; time, memory and turns are read as of a GPU."""
    case = Case("rms", "contiguous", (128, 4096), "bf16", "plain", "both")
    given = []

    def made(case, device):
        given.append(inputs(case))
        return given[-1]

    monkeypatch.setattr(comparison, "inputs", made)
    for module in (layers, contestants):
        monkeypatch.setattr(module, "placed", lambda layer, *_: layer.to(torch.bfloat16))
    monkeypatch.setattr(torch.compiler, "reset", lambda: None)  # it looks at the GPU, too
    monkeypatch.setattr(comparison, "LEAST_TO_ROTATE", 1 << 10)
    monkeypatch.setattr(Event, "record", Event.tick)
    budget = Budget(seconds=0.0, fewest=2, most=2, per_round=0.02)
    (row,) = measure([case], ("eager",), budget, "cuda:0")
    assert row["failed"] == {}
    assert len(given) == 2 * 50 * MB // case.nbytes
    assert row["us"]["ours"]["median"] == 5000.0  # rounds of two calls, a tick of 10 ms for each
    assert row["peak_bytes"] == {"ours": 0, "eager": 0}
    assert "emptied" in gpu.log


def test_results_name_the_gpu(gpu):
    assert about("default", {}, "cuda:0")["gpu"]["name"] == "A GPU"
