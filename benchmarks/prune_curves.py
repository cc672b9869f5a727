"""Pruning without fine-tuning, from half of the channels to nine of ten, beside other ways.

    python -m benchmarks.prune_curves [--seeds 5] [--epochs 40]

Three small networks are trained on scikit-learn's digits with the L1 penalty on γ (λ = 0.02, in the
loss), and cut by: |γ| with constants absorbed and statistics recomputed; a refit, and 300 steps of
distillation behind it; and Torch-Pruning (Fang et al. 2023), by |γ| or by the magnitude of weights,
with statistics recomputed.  All have the same calibration inputs, without labels.  The network that
is left by the refit is also trained from scratch, for half as long again.  Writes
benchmarks/results/prune_curves.json and the table of docs/pruning.md.
"""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.over_seeds import lost, run
from benchmarks.page import line
from benchmarks.prune_digits import WIDTHS, accuracy, network, scratch, speed_up, train

__all__ = ["NETWORKS", "WAYS", "main", "measure", "table"]

RATIOS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
TRAINED_ANEW = (0.7, 0.8, 0.85)
STRENGTH = 2e-2
SMALL = ((24, 24), (48, 48))
NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "16-16-M-32-32-M-64-64, ReLU": lambda: network(WIDTHS),
    "24-24-M-48-48, ReLU": lambda: network(SMALL),
    "24-24-M-48-48, SiLU": lambda: network(SMALL, nn.SiLU),
}
Way = Callable[[nn.Module, float, list[Tensor]], nn.Module]


def _by_gamma(model: nn.Module, ratio: float, batches: list[Tensor]) -> nn.Module:
    from anynorm.surgery import prune

    return prune(model, batches[0], ratio=ratio, recalibrate=batches).model


def _refit(steps: int) -> Way:
    def cut(model: nn.Module, ratio: float, batches: list[Tensor]) -> nn.Module:
        from anynorm.surgery import prune

        options: dict[str, Any] = {"recalibrate": batches, "refit": batches, "distill": steps}
        return prune(model, batches[0], ratio=ratio, **options).model

    return cut


def _torch_pruning(importance: str) -> Way:
    def cut(model: nn.Module, ratio: float, batches: list[Tensor]) -> nn.Module:
        import torch_pruning

        from anynorm.surgery import recalibrate

        model = copy.deepcopy(model)
        head = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = torch_pruning.pruner.MetaPruner(
                model,
                batches[0],
                importance=getattr(torch_pruning.importance, importance)(),
                pruning_ratio=ratio,
                global_pruning=True,
                ignored_layers=head,
            )
            pruner.step()
        return recalibrate(model, batches).model

    return cut


WAYS: dict[str, Way] = {
    "|γ|, constants, statistics": _by_gamma,
    "refit": _refit(0),
    "refit, 300 steps": _refit(300),
    "Torch-Pruning, |γ|": _torch_pruning("BNScaleImportance"),
    "Torch-Pruning, magnitude": _torch_pruning("GroupMagnitudeImportance"),
}


def measure(job: tuple[str, int, int]) -> list[dict[str, Any]]:
    """One network and seed: each way at each ratio."""
    from anynorm.study.data import load
    from anynorm.surgery import recalibrate

    name, seed, epochs = job
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = load("digits")
    model = NETWORKS[name]()
    train(model, data, epochs, STRENGTH, "loss")
    batches = list(data.train_x.split(64))
    control = accuracy(recalibrate(model, batches).model, data)
    found = []
    for ratio in RATIOS:
        for way, cut in WAYS.items():
            small = cut(model, ratio, batches)
            row = {"network": name, "seed": seed, "ratio": ratio, "way": way, "control": control}
            row |= {"accuracy": accuracy(small, data), **_sizes(model, small)}
            found.append(row)
            if way == "refit" and ratio in TRAINED_ANEW:
                reached = scratch(copy.deepcopy(small), data, epochs)
                found.append({**row, "way": "from scratch", "accuracy": reached})
    return found


def _sizes(model: nn.Module, small: nn.Module) -> dict[str, float]:
    """What is left: parameters and FLOPs as shares, and how much faster a batch of 64 is."""
    one, other = ((sum(p.numel() for p in m.parameters()), _operations(m)) for m in (model, small))
    found = {"parameters": other[0] / one[0], "flops": other[1] / one[1]}
    return found | {"speed": speed_up(model, small, 64)}


def _operations(model: nn.Module) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 8, 8))
    return int(counter.get_total_flops())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Points of accuracy below the control, median and worst of the seeds, as Markdown."""
    ways = dict.fromkeys(row["way"] for row in rows)
    heads = ["network", "channels cut", *ways, "refit: parameters, FLOPs, speed"]
    lines = [line(heads), "|---" * len(heads) + "|"]
    for name in dict.fromkeys(row["network"] for row in rows):
        for ratio in dict.fromkeys(row["ratio"] for row in rows):
            here = [row for row in rows if (row["network"], row["ratio"]) == (name, ratio)]
            cells = [lost([row for row in here if row["way"] == way]) for way in ways]
            lines.append(line([name, f"{ratio:.0%}", *cells, _left(here)]))
    return "\n".join(lines)


def _left(rows: Iterable[dict[str, Any]]) -> str:
    refitted = [row for row in rows if row["way"] == "refit"]
    middle = {k: statistics.median(row[k] for row in refitted) for k in ("parameters", "flops")}
    speed = statistics.median(row["speed"] for row in refitted)
    return f"{middle['parameters']:.1%}, {middle['flops']:.1%}, {speed:.2f}×"


def main(arguments: Sequence[str] | None = None) -> None:
    models = NETWORKS
    run("prune_curves", "pruning.md", __doc__, models, measure, table, 40, arguments)


if __name__ == "__main__":
    main()
