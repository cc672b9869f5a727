"""Pruning by γ without fine-tuning, on scikit-learn's digits: every row with its controls.

    python -m benchmarks.prune_digits [--seeds 5] [--epochs 40]

Convolutions 16-16-M-32-32-M-64-64 (72,666 parameters) are trained with the L1 penalty on γ, as a
term of the loss or as a proximal step, by SGD whose rate falls from 0.1 to 0.01 in a cosine.  Then
they are cut in four ways: as the public implementations do, with the constants absorbed, with the
statistics recomputed, and with both.  Speed is a ratio to the uncut model, measured in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# λ, its form, and the share of channels that is cut.
SETTINGS = ((1e-2, "loss", 0.6), (2e-2, "loss", 0.7), (2e-2, "proximal", 0.7))
RATE, LAST = 0.1, 0.01
ROWS = {
    "cut only": {"absorb": False, "recalibrate": False},
    "absorbed into the next layer": {"absorb": True, "recalibrate": False},
    "statistics recomputed": {"absorb": False, "recalibrate": True},
    "absorbed and recomputed": {"absorb": True, "recalibrate": True},
}


WIDTHS = ((16, 16), (32, 32), (64, 64))


def network(
    widths: Sequence[Sequence[int]] = WIDTHS, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolutions with batch norm, γ starting at 0.5 as in Liu et al. 2017; pools between."""
    layers: list[nn.Module] = []
    channels = 1
    for index, group in enumerate(widths):
        layers += [nn.MaxPool2d(2)] * (index > 0)
        for width in group:
            norm = nn.BatchNorm2d(width)
            nn.init.constant_(norm.weight, 0.5)
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), norm, activation()]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def shifted(x: Tensor) -> Tensor:
    """Each image moved by up to one pixel in each direction."""
    padded = F.pad(x, (1, 1, 1, 1), value=float(x.min()))
    moves = torch.randint(0, 3, (len(x), 2)).tolist()
    return torch.stack(
        [image[:, i : i + 8, j : j + 8] for image, (i, j) in zip(padded, moves, strict=True)]
    )


def train(model: nn.Module, data: Any, epochs: int, strength: float = 0.0, form: str = "") -> None:
    """Train with augmentation; the penalty is part of the loss or a step behind the optimizer's."""
    from anynorm.surgery import Slim

    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    steps = epochs * -(-len(data.train_x) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=LAST)
    penalty = Slim(model, strength) if form else None
    if penalty is not None and form == "proximal":
        penalty.attach(optimizer)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train_x)).split(64):
            loss = F.cross_entropy(model(shifted(data.train_x[rows])), data.train_y[rows])
            if penalty is not None and form == "loss":
                loss = loss + penalty.loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Any) -> float:
    return 100 * (model.eval()(data.test_x).argmax(1) == data.test_y).double().mean().item()


def timed(model: nn.Module, batch: int) -> float:
    x = torch.randn(batch, 1, 8, 8)
    begin = time.perf_counter()
    with torch.no_grad():
        for _ in range(20):
            model(x)
    return time.perf_counter() - begin


def speed_up(old: nn.Module, new: nn.Module, batch: int) -> float:
    """The median ratio of times measured in turns."""
    for model in (old, new):
        timed(model, batch)
    return statistics.median(timed(old, batch) / timed(new, batch) for _ in range(30))


def run(job: tuple[int, float, str, float, int]) -> dict[str, float]:
    """One seed: train, cut in each way, and measure."""
    from anynorm.study.data import load
    from anynorm.surgery import prune, recalibrate

    seed, strength, form, ratio, epochs = job
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = load("digits")
    model = network()
    train(model, data, epochs, strength, form)
    batches = list(data.train_x.split(256))
    example = data.train_x[:512]
    found = {"not pruned": accuracy(model, data)}
    found["control: not pruned, recomputed"] = accuracy(recalibrate(model, batches).model, data)
    for row, how in ROWS.items():
        options = {"absorb": how["absorb"], "recalibrate": batches if how["recalibrate"] else None}
        pruned = prune(model, example, ratio=ratio, **options)  # type: ignore[arg-type]
        found[row] = accuracy(pruned.model, data)
    found |= _at_the_gap(model, example, batches, data)
    found |= _sizes(model, pruned)
    fresh = pruned.plan.apply(network())
    return found | {"the small network from scratch": scratch(fresh, data, epochs)}


def _at_the_gap(model: nn.Module, example: Tensor, batches: Any, data: Any) -> dict[str, float]:
    from anynorm.errors import AnynormError
    from anynorm.surgery import prune

    try:
        gap = prune(model, example, gap=True, recalibrate=batches)
    except AnynormError:  # there is none
        return {}
    facts = gap.receipt.facts
    return {
        "absorbed and recomputed, cut at the gap found": accuracy(gap.model, data),
        "channels below that gap (%)": 100 * facts["cut"] / facts["channels"],
    }


def _sizes(model: nn.Module, pruned: Any) -> dict[str, float]:
    found = {}
    for name in ("parameters", "flops"):
        before, after = map(int, pruned.receipt.facts[name].split(" -> "))
        found[f"{name} cut (%)"] = 100 * (1 - after / before)
    for batch in (1, 64):
        found[f"speed-up at batch {batch}"] = speed_up(model, pruned.model, batch)
    return found


def scratch(small: nn.Module, data: Any, epochs: int) -> float:
    """The accuracy of a fresh network, after training for half as long again."""
    for layer in small.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.reset_parameters()
    train(small, data, epochs * 3 // 2)
    return accuracy(small, data)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    jobs = [(seed, *s, options.epochs) for s in SETTINGS for seed in range(options.seeds)]
    with ProcessPoolExecutor(options.workers) as pool:
        found = list(pool.map(run, jobs))
    print(table([found[i : i + options.seeds] for i in range(0, len(found), options.seeds)]))


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}" if values else "–"


def table(columns: Sequence[Sequence[dict[str, float]]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    heads = [f"λ = {strength:g} ({form}), {ratio:.0%} cut" for strength, form, ratio in SETTINGS]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    rows = dict.fromkeys(row for column in columns for seed in column for row in seed)
    for row in rows:
        values = [_spread([seed[row] for seed in column if row in seed]) for column in columns]
        lines.append(f"| {row} | " + " | ".join(values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
