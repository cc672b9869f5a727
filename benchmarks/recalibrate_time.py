"""Recalibration in lockstep beside settled passes: passes, time, memory, and their difference.

    python -m benchmarks.recalibrate_time    # half an hour; nothing else should run

ResNet-50 and EfficientNet-B0 with random weights, on 8 batches of 16 images of 96 x 96.  The time
of a recalibration is divided by that of one evaluation pass over the same batches; the two run in
turns in one process, and the median of the ratios counts.  Settled passes (`memory=0`) take one
batch after the other, and run once.  Peak memory is that of a process of its own for each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import RESULTS, ROOT
from benchmarks.child import result as result_of_child
from benchmarks.page import fill, line
from benchmarks.process import peak_megabytes
from benchmarks.result_files import about, read, write

__all__ = ["FILE", "MODELS", "main", "measure", "peak", "table"]

FILE = RESULTS / "recalibrate-time.json"
PAGE = ROOT / "docs" / "surgery.md"
WAYS = ("evaluation", "lockstep", "settled passes")
Row = dict[str, Any]
Batches = list[dict[str, Tensor]]


def resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig())  # the default is ResNet-50


def efficientnet() -> nn.Module:
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
    return EfficientNetForImageClassification(config)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-50": resnet,
    "EfficientNet-B0": efficientnet,
}


def built(name: str, options: argparse.Namespace) -> tuple[nn.Module, Batches]:
    """The model, and batches whose images differ in brightness and contrast."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for module in model.modules():
        # With the small weights and γ of their initialization, variances vanish beside ε.
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    shape = (options.batch, 3, options.size, options.size)
    batches = [torch.randn(shape) for _ in range(options.batches)]
    scale, shift = torch.rand(2, options.batches, options.batch, 1, 1, 1)
    return model, [
        {"pixel_values": x * s + t} for x, s, t in zip(batches, scale, shift, strict=True)
    ]


def runs(model: nn.Module, batches: Batches) -> dict[str, Callable[[], Any]]:
    """What is compared, each as a function; the model's weights do not change."""
    from anynorm.surgery import recalibrate

    @torch.no_grad()
    def evaluate() -> None:
        for batch in batches:
            model(**batch)

    return {
        WAYS[0]: evaluate,
        WAYS[1]: lambda: recalibrate(model, batches, inplace=True),
        WAYS[2]: lambda: recalibrate(model, batches, inplace=True, memory=0),
    }


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def measure(name: str, options: argparse.Namespace) -> Row:
    """Times as ratios to an evaluation pass, passes, and the difference of the statistics."""
    model, batches = built(name, options)
    ways = runs(model, batches)
    ways[WAYS[0]]()
    ratios, found = [], None
    for _ in range(options.rounds):
        alone, _ = timed(ways[WAYS[0]])
        together, found = timed(ways[WAYS[1]])
        ratios.append(together / alone)
    statistics_of_one = _statistics(model)
    settled, passes = timed(ways[WAYS[2]]) if options.settled else (None, None)
    row: Row = {
        "model": name,
        "layers": len(found.receipt.changed) if found else 0,
        "evaluation, s": alone,
        "lockstep": sorted(ratios),
        "memory": found.receipt.facts["memory"] if found else "",
        "passes": {WAYS[1]: found.receipt.facts["passes"] if found else 0},
    }
    if settled is not None:
        row["settled passes"] = settled / alone
        row["passes"][WAYS[2]] = passes.receipt.facts["passes"]
        row["difference"] = _furthest(statistics_of_one, _statistics(model))
    return row


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone().double() for name, b in model.named_buffers() if "running" in name}


def _furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference, beside the largest number of the same statistic of the layer."""
    pairs = ((one[name], other[name]) for name in one)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def peak(name: str, way: str, options: argparse.Namespace) -> dict[str, float]:
    """Megabytes that this process had at most: before the run, and in all."""
    model, batches = built(name, options)
    with torch.no_grad():
        model(**batches[0])  # what the first call allocates for good
    before = peak_megabytes()
    # One settled pass takes as much memory as all.
    runs(model, batches)[WAYS[0] if way == WAYS[2] else way]()
    return {"before": before, "peak": peak_megabytes()}


def table(rows: Sequence[Row]) -> str:
    """A row for each model and way."""
    head = ("", "", "passes", "time / one evaluation pass (quartiles)", "peak memory, MB")
    lines = [line(head), "|---" * len(head) + "|"]
    for row in rows:
        megabytes = {way: f"{row['peak'][way]['peak']:.0f}" for way in WAYS if way in row["peak"]}
        ratios = row["lockstep"]
        count = len(ratios)
        middle = f"{statistics.median(ratios):.2f} ({ratios[count // 4]:.2f} to "
        middle += f"{ratios[-1 - count // 4]:.2f})"
        lines += [
            line((row["model"], WAYS[0], "1", "1", megabytes.get(WAYS[0], ""))),
            line(("", WAYS[1], str(row["passes"][WAYS[1]]), middle, megabytes.get(WAYS[1], ""))),
        ]
        if "settled passes" in row:
            passes, ratio = row["passes"][WAYS[2]], f"{row['settled passes']:.1f}"
            lines.append(line(("", WAYS[2], str(passes), ratio, "as evaluation")))
    far = [f"{row['difference']:.2g} ({row['model']})" for row in rows if "difference" in row]
    if far:
        lines += ["", f"The largest relative difference of a statistic is {' and '.join(far)}."]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=list(MODELS))
    for name, number in (("batches", 8), ("batch", 16), ("size", 96), ("rounds", 9)):
        add(f"--{name}", type=int, default=number)
    settled = "also run settled passes, one for each layer (yes)"
    add("--settled", action=argparse.BooleanOptionalAction, default=True, help=settled)
    add("--out", type=Path, default=FILE)
    add("--table", action="store_true", help="only show what was measured")
    add("--peak", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the result and the table of the page."""
    options = parse(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.peak:
        print(json.dumps(peak(*options.peak, options)))
        return
    if not options.table:
        # Those of models that are not measured again stay.
        rows = read(options.out)["rows"] if options.out.exists() else []
        rows = {row["model"]: row for row in rows}
        for name in options.models:
            rows[name] = {**measure(name, options), "peak": _peaks(name, options)}
            print(rows[name], flush=True)
        described = about("default", _settings(options))
        write(options.out, {"about": described, "rows": list(rows.values())})
    words = table(read(options.out)["rows"])
    print(words)
    if options.out == FILE:
        fill(PAGE, "recalibration time", words)


def _peaks(name: str, options: argparse.Namespace) -> dict[str, Any]:
    sizes = [word for key in ("batches", "batch", "size") for word in _option(key, options)]
    module = "benchmarks.recalibrate_time"
    return {way: result_of_child(module, *sizes, "--peak", name, way) for way in WAYS[:2]}


def _option(name: str, options: argparse.Namespace) -> tuple[str, str]:
    return f"--{name}", str(getattr(options, name))


def _settings(options: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(options, name) for name in ("batches", "batch", "size", "rounds")}


if __name__ == "__main__":
    main()
