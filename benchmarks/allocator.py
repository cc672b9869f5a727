"""What the allocator costs: page faults, time and memory in three settings.

    python -m benchmarks.allocator

Each setting runs in a process of its own: memory as malloc gives it, torch's own huge pages
(``THP_MEM_ALLOC_ENABLE=1``), and `anynorm.tune_allocator`.  Measured are torch's ReLU of 51 MB, in
the main thread and in another, and a training step of a convolutional network whose batch size
stays or varies.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import torch

import anynorm
from benchmarks import child
from benchmarks.process import peak_megabytes

SETTINGS = {"malloc": {}, "torch's huge pages": {"THP_MEM_ALLOC_ENABLE": "1"}, "tuned": {}}
CASES = ("relu", "relu-thread", "train", "train-varying")
WARM_UP, REPEATS = 5, 25


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(call: Callable[[], object]) -> dict[str, float]:
    """Medians of the milliseconds and of the page faults of a call."""
    rows = []
    for _ in range(WARM_UP + REPEATS):
        before, start = faults(), time.perf_counter()
        call()
        rows.append(((time.perf_counter() - start) * 1e3, faults() - before))
    milliseconds, counts = zip(*rows[WARM_UP:], strict=True)
    return {"ms": statistics.median(milliseconds), "faults": statistics.median(counts)}


def relu() -> dict[str, float]:
    x = torch.randn(64, 64, 56, 56)
    return measure(lambda: x.relu())


def relu_thread() -> dict[str, float]:
    """The same where glibc's heaps end at 64 MiB each."""
    found: list[dict[str, float]] = []
    thread = threading.Thread(target=lambda: found.append(relu()))
    thread.start()
    thread.join()
    return found[0]


def block(inputs: int, outputs: int, stride: int) -> list[torch.nn.Module]:
    conv = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return [conv, anynorm.BatchNorm2d(outputs, activation="relu")]


def train(sizes: Iterator[int]) -> dict[str, float]:
    layers = [*block(3, 32, 1), *block(32, 32, 1), *block(32, 64, 2), *block(64, 128, 2)]
    net = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        net(torch.randn(next(sizes), 3, 112, 112)).square().mean().backward()
        optimizer.step()

    return measure(step)


def varying() -> Iterator[int]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield int(torch.randint(16, 33, (), generator=generator))


def run(case: str) -> dict[str, float]:
    if case.startswith("relu"):
        row = relu_thread() if case.endswith("thread") else relu()
    else:
        row = train(varying() if case.endswith("varying") else iter(lambda: 32, 0))
    return {**row, "peak MB": peak_megabytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    if one := parser.parse_args().one:
        assert one[0] != "tuned" or anynorm.tune_allocator()
        print(json.dumps(run(one[1])))
        return
    for case in CASES:
        for setting, environment in SETTINGS.items():
            one = ("--one", setting, case)
            row = child.result("benchmarks.allocator", *one, environment=environment)
            print(f"{case:14} {setting:20}", *(f"{v:9.5g} {k}" for k, v in row.items()))


if __name__ == "__main__":
    main()
