"""A training step of a whole network: torch.nn's layers beside anynorm's.

    python -m benchmarks.resnet [--model resnet50] [--device cuda] [--compile] [--dtype bf16]

The models are ResNet-18-like (the default), ResNet-50 and a small transformer with RMS norm.  All
contestants start from the same weights and train on the same data in one process, step by step in
alternation, so their losses must agree within rounding: these are written too.  Peak memory is that
of a process of its own for each; on a GPU it is what a step has at once beyond weights, gradients
and the optimizer's state.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from anynorm.bench import resolve
from anynorm.bench.timing import Times, ratios, spread
from benchmarks import RESULTS, hardware, script
from benchmarks.child import result as result_of_child
from benchmarks.models import LAYOUTS, MODELS, Size
from benchmarks.process import SETTINGS, adopt, peak_megabytes
from benchmarks.result_files import about, file_name, load, write

STEPS_FOR_MEMORY = 3
Step = Callable[[], float]


def main() -> None:
    options = parse()
    options.device = resolve(options.device)
    if options.one:
        adopt(options.device, options.one, options.threads)
        print(json.dumps(peak(options) if options.memory else compare(options)))
    else:
        run_all(options)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="resnet")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    parser.add_argument("--compile", action="store_true", help="both sides compiled, too")
    for name in ("batch", "size", "width"):
        parser.add_argument(f"--{name}", type=int, help="by default the model's own")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder")
    parser.add_argument("--one", choices=SETTINGS, help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def contestants(options: argparse.Namespace) -> list[str]:
    """Whose layers, and how they are run."""
    return ["ours", "eager", *(["ours-compiled", "eager-compiled"] if options.compile else [])]


def size(options: argparse.Namespace) -> Size:
    given = {name: getattr(options, name) for name in ("batch", "size", "width")}
    own = MODELS[options.model].size
    return replace(own, **{name: number for name, number in given.items() if number})


def training(options: argparse.Namespace, name: str, layout: str) -> Step:
    """A function that trains one step on the next batch, and returns the loss."""
    torch.manual_seed(0)
    model, numbers, memory = MODELS[options.model], size(options), LAYOUTS[layout]
    whose, _, compiled = name.partition("-")
    network = model.build(whose, numbers).to(options.device, memory_format=memory)  # type: ignore[call-overload]
    run = torch.compile(network) if compiled else network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    data = torch.Generator(options.device).manual_seed(1)
    kind = options.device.partition(":")[0]

    def step() -> float:
        x, wanted = model.batch(numbers, data)
        x = x.contiguous(memory_format=memory)
        optimizer.zero_grad()
        with torch.autocast(kind, torch.bfloat16, enabled=options.dtype == "bf16"):
            loss = model.loss(run(x), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()  # waits for a GPU

    return step


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Times, ratios and losses in each layout, in this process."""
    names = ("model", "dtype", "rounds")
    settings = {**vars(size(options)), **{name: getattr(options, name) for name in names}}
    described = about(options.one, settings, options.device)
    layouts = MODELS[options.model].layouts
    rows = [{"layout": layout, **_alternate(options, layout)} for layout in layouts]
    return {"about": described, "network": rows}


def _alternate(options: argparse.Namespace, layout: str) -> dict[str, Any]:
    steps = {name: training(options, name, layout) for name in contestants(options)}
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
        **_compiled_ratio(times),
        "losses": losses,
        "loss_difference": max(map(_apart, losses["ours"], losses["eager"])),
        **_gpu_memory(steps, options.device),
    }


def _compiled_ratio(times: Times) -> dict[str, Any]:
    if "ours-compiled" not in times:
        return {}
    return {"ratio_compiled": spread(ratios(times, "eager-compiled", "ours-compiled"))}


def _gpu_memory(steps: Mapping[str, Step], device: str) -> dict[str, Any]:
    peaks = {name: hardware.peak(step, device) for name, step in steps.items()}
    found = {name: {"peak": peak / (1 << 20)} for name, peak in peaks.items() if peak is not None}
    return {"memory": found} if found else {}


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
    others = load()  # before our own children run
    for setting in SETTINGS if options.device == "cpu" else SETTINGS[:1]:
        result = child(setting)
        if result is None:  # the child has said why
            continue
        result["about"]["load"] = others
        for row in result["network"]:
            if "memory" not in row:
                names = contestants(options)
                row["memory"] = {n: child(setting, "--memory", n, row["layout"]) for n in names}
            print(*lines(setting, row), sep="\n", flush=True)
        write(options.results / file_name(result["about"], options.model), result)


def child(setting: str, *more: str) -> Any:
    """What a process of its own prints; nothing where it cannot adopt the setting."""
    try:
        return result_of_child("benchmarks.resnet", *sys.argv[1:], "--one", setting, *more)
    except subprocess.CalledProcessError:
        if more:
            raise
        return None


def lines(setting: str, row: dict[str, Any]) -> list[str]:
    """A line for each contestant, and one for what they say together."""
    shown = [
        f"{setting:8} {row['layout']:14} {name:14} {found['median']:.1f} ms, "
        f"peak {row['memory'][name]['peak']:.0f} MB"
        for name, found in row["ms"].items()
    ]
    ratio = "{median:.3f} [{low:.3f}, {high:.3f}]".format_map(row["ratio"])
    return [*shown, f"torch.nn's time over ours {ratio}; losses differ by "
            f"{row['loss_difference']:.1e}"]  # fmt: skip


if __name__ == "__main__":
    script(main)
