"""What a study costs beyond its training: the pool, Ray with one node and with two.

    python -m benchmarks.cluster [--cells 1000] [--rounds 3] [--pending 100000]

Every engine runs the same cells, of one training step each, on two CPUs: "one node" has both, "two
nodes" have one each, as processes of their own on this machine.  "Start" is the time to the first
record; cells per second are counted from there, in the best of the rounds, in which the engines
take turns.  "Beyond training" is the CPU time on offer for a cell less what it takes in a process
of its own.  Memory is that of the driving process while `--pending` cells wait and the first 200
are run, in Ray's window of tasks and against handing all of them to Ray at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from anynorm.study.cell import Cell
from anynorm.study.engines import engine
from anynorm.study.store import Store
from benchmarks.child import result

CPUS = 2
# The nodes of each engine.
ENGINES = {"pool, 2 processes": 0, "Ray, one node": 1, "Ray, two nodes": 2}
NODE = {"object_store_memory": 80_000_000}


def tiny(norm: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), norm(10))


def cells(count: int) -> list[Cell]:
    base = {"subject": "benchmarks.cluster:tiny", "data": "digits", "norm": "batch", "lr": 0.1}
    return [Cell(**base, steps=1, seed=seed) for seed in range(count)]


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """The address of a cluster whose nodes share the CPUs."""
    from ray.cluster_utils import Cluster

    node = {**NODE, "num_cpus": CPUS // nodes}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(**node)
        yield f"ray:{made.address}"
    finally:
        made.shutdown()


def alone(count: int = 60) -> float:
    """Seconds of a cell in this process."""
    import torch

    from anynorm.study.train import run

    torch.set_num_threads(1)
    times = []
    for cell in cells(count):
        start = time.perf_counter()
        run(cell)
        times.append(time.perf_counter() - start)
    return statistics.fmean(times[5:])


def speed(on: str, count: int) -> dict[str, float]:
    """Run the cells; when the first and the last record came, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        made = engine(on, None if on.startswith("ray:") else CPUS)
        start = time.perf_counter()
        times = []
        for _, reason in made.run(cells(count), Store(folder)):
            if reason is not None:
                raise RuntimeError(reason)
            times.append(time.perf_counter() - start)
        made.close()
    return {"first": times[0], "last": times[-1]}


def memory(on: str, pending: int, finished: int, window: int | None) -> dict[str, float]:
    """Megabytes of this process: the plan, then the most while the first cells are run."""
    waiting = cells(pending)
    with tempfile.TemporaryDirectory() as folder:
        made = engine(on, window)
        before = megabytes()
        results = made.run(waiting, Store(folder))
        most = max(megabytes() for _ in islice(results, finished))
        results.close()
        made.close()
    return {"plan": before, "most": most}


def megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def table(count: int, rounds: int) -> None:
    turns = [once(count) for _ in range(rounds)]
    own = min(turn["alone"] for turn in turns)
    print(
        "| engine | start, s | cells per second | beyond training, ms per cell |\n|---|---|---|---|"
    )
    for name in ENGINES:
        first = min(turn[name]["first"] for turn in turns)
        rates = [(count - 1) / (turn[name]["last"] - turn[name]["first"]) for turn in turns]
        extra = 1e3 * (CPUS / max(rates) - own)
        spread = f"{max(rates):.1f} ({', '.join(f'{rate:.1f}' for rate in rates)})"
        print(f"| {name} | {first:.1f} | {spread} | {extra:.1f} |", flush=True)
    print(f"\nA cell in a process of its own takes {1e3 * own:.1f} ms.")


def once(count: int) -> dict[str, Any]:
    """Every engine in turn, and a process of its own."""
    found: dict[str, Any] = {"alone": result("benchmarks.cluster", "--case", "alone")}
    for name, nodes in ENGINES.items():
        with ExitStack() as stack:
            on = stack.enter_context(cluster(nodes)) if nodes else "local"
            arguments = ("--case", "speed", "--on", on, f"--cells={count}")
            found[name] = result("benchmarks.cluster", *arguments)
    return found


def memory_table(pending: int) -> None:
    print("\n| cells that wait | before the first | the most with Ray |\n|---|---|---|")
    rows = ((1000, 0), (pending, 0), (pending, pending))
    with cluster(1) as on:
        for count, window in rows:
            arguments = ("--on", on, f"--pending={count}", f"--window={window}")
            found = result("benchmarks.cluster", "--case", "memory", *arguments)
            name = f"{count:,}, {'all handed over' if window else '4 tasks a CPU'}"
            print(f"| {name} | {found['plan']:.0f} MB | {found['most']:.0f} MB |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pending", type=int, default=100_000)
    parser.add_argument("--window", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=["alone", "speed", "memory"], help=argparse.SUPPRESS)
    parser.add_argument("--on", default="local", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.case == "alone":
        print(json.dumps(alone()))
    elif given.case == "speed":
        print(json.dumps(speed(given.on, given.cells)))
    elif given.case == "memory":
        print(json.dumps(memory(given.on, given.pending, 200, given.window or None)))
    else:
        table(given.cells, given.rounds)
        memory_table(given.pending)


if __name__ == "__main__":
    main()
