"""A training step of a ResNet-18-like network: torch.nn's layers beside anynorm's fused ones.

    python -m benchmarks.resnet [--batch 32] [--size 64] [--width 64]

Both networks start from the same weights and train on the same data in one process, step by step in
alternation, so their losses must agree within rounding: these are written too.  Peak memory is that
of a process of its own for each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.child import result as result_of_child
from benchmarks.kept import peak_megabytes
from benchmarks.network import NORMS, Network
from benchmarks.results import RESULTS, about, file_name, load, write
from benchmarks.settings import SETTINGS, adopt
from benchmarks.timing import Times, ratios, spread

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
STEPS_FOR_MEMORY = 3
Step = Callable[[], float]


def main() -> None:
    options = parse()
    if options.one:
        adopt(options.one)
        if options.threads:
            torch.set_num_threads(options.threads)
        print(json.dumps(peak(options) if options.memory else compare(options)))
    else:
        run_all(options)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--one", choices=SETTINGS, help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def training(options: argparse.Namespace, name: str, layout: str) -> Step:
    """A function that trains one step on the next batch, and returns the loss."""
    torch.manual_seed(0)
    memory = LAYOUTS[layout]
    network = Network(NORMS[name], options.width).to(memory_format=memory)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    data = torch.Generator().manual_seed(1)

    def step() -> float:
        x = torch.randn(options.batch, 3, options.size, options.size, generator=data)
        wanted = torch.randint(10, (options.batch,), generator=data)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x.to(memory_format=memory)), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    return step


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Times, ratios and losses in both layouts, in this process."""
    settings = {name: getattr(options, name) for name in ("batch", "size", "width", "rounds")}
    described = about(options.one, settings)
    rows = [{"layout": layout, **_alternate(options, layout)} for layout in LAYOUTS]
    return {"about": described, "network": rows}


def _alternate(options: argparse.Namespace, layout: str) -> dict[str, Any]:
    steps = {name: training(options, name, layout) for name in NORMS}
    losses: dict[str, list[float]] = {name: [step()] for name, step in steps.items()}
    times: Times = {name: [] for name in steps}
    order = list(steps)
    for _ in range(options.rounds):
        for name in order:
            start = time.perf_counter()
            losses[name].append(steps[name]())
            times[name].append(time.perf_counter() - start)
        order.reverse()
    return {
        "ms": {name: spread([second * 1e3 for second in found]) for name, found in times.items()},
        "ratio": spread(ratios(times, "eager", "ours")),
        "losses": losses,
        "loss_difference": max(map(_apart, losses["ours"], losses["eager"])),
    }


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(abs(other), 1e-12)


def peak(options: argparse.Namespace) -> dict[str, float]:
    """Megabytes that this process had at most, before training and in all."""
    name, layout = options.memory
    step = training(options, name, layout)
    before = peak_megabytes()
    for _ in range(STEPS_FOR_MEMORY):
        step()
    return {"before": before, "peak": peak_megabytes()}


def run_all(options: argparse.Namespace) -> None:
    console, others = Console(soft_wrap=True), load()  # before our own children run
    for setting in SETTINGS:
        result = child(setting)
        if result is None:  # the child has said why
            continue
        result["about"]["load"] = others
        for row in result["network"]:
            row["memory"] = {n: child(setting, "--memory", n, row["layout"]) for n in NORMS}
            show(console, setting, row)
        write(options.results / file_name(result["about"], "resnet"), result)


def child(setting: str, *more: str) -> Any:
    """What a process of its own prints; nothing where it cannot adopt the setting."""
    try:
        return result_of_child("benchmarks.resnet", *sys.argv[1:], "--one", setting, *more)
    except subprocess.CalledProcessError:
        if more:
            raise
        return None


def show(console: Console, setting: str, row: dict[str, Any]) -> None:
    peaks = {name: memory["peak"] for name, memory in row["memory"].items()}
    console.print(
        f"{setting:8} {row['layout']:14} ours {row['ms']['ours']['median']:.1f} ms, torch.nn "
        f"{row['ms']['eager']['median']:.1f} ms, ratio "
        + "{median:.3f} [{low:.3f}, {high:.3f}]".format_map(row["ratio"])
        + f", peak {peaks['ours']:.0f} and {peaks['eager']:.0f} MB, "
        f"losses differ by {row['loss_difference']:.1e}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
