"""Synchronised batch norm: bytes and collectives, time of a step, and a model of many ranks.

    python -m benchmarks.sync [--ranks 2 3 4] [--steps 20]

What torch's own sends is read from its source (it cannot run on CPUs): forward an all_gather of
2C + 1 values of the input's type, backward an all_reduce of 2C.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.utils._python_dispatch import TorchDispatchMode

import anynorm

CHANNELS = 256
NAMES = ("batch", "lp-batch", "l1-batch", "linf-batch", "zca")
WARMUP = 3


class Counting(TorchDispatchMode):
    """Inside it, every functional collective is noted as its name and a rank's bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = func.name().partition("::")
        if space == "_c10d_functional" and not name.startswith("wait"):
            self.calls.append((name, args[0].numel() * args[0].element_size()))
        return func(*args, **kwargs or {})


class Traffic(NamedTuple):
    """Collectives and a rank's bytes, forward and backward."""

    forward: int
    forward_bytes: int
    backward: int
    backward_bytes: int


def torchs(channels: int) -> Traffic:
    return Traffic(1, 4 * (2 * channels + 1), 1, 4 * 2 * channels)


def ours(name: str, channels: int) -> Traffic:
    options = {"groups": channels // 16} if name == "zca" else {}
    layer = anynorm.create(name, channels, sync=True, **options)
    x = torch.randn(8, channels, 4, 4, requires_grad=True)
    with Counting() as forward:
        y = layer(x)
    with Counting() as backward:
        y.square().sum().backward()
    counts = ((len(c.calls), sum(size for _, size in c.calls)) for c in (forward, backward))
    return Traffic(*(number for pair in counts for number in pair))


class Block(nn.Module):
    """A residual block, whose second norm adds the shortcut before its ReLU."""

    def __init__(self, channels: int, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1, self.norm2 = (norm(channels, activation="relu") for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm2(self.conv2(self.norm1(self.conv1(x))), x)
        return y


def network(sync: bool | None) -> nn.Module:
    def norm(channels: int, **options: Any) -> nn.Module:
        return anynorm.BatchNorm2d(channels, sync=sync, **options)

    stem = [nn.Conv2d(3, 32, 3, padding=1, bias=False), norm(32, activation="relu")]
    return nn.Sequential(*stem, *(Block(32, norm) for _ in range(4)), nn.Flatten(2))


def step_times(steps: int) -> dict[str, tuple[float, float]]:
    """Least and median seconds of forward and backward by local and by synchronised statistics.

    In turns, and without averaging the gradients, so that local statistics send nothing.
    """
    x = torch.randn(8, 3, 32, 32)
    models = {"local": network(None), "synced": network(True)}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for step in range(WARMUP + steps):
        for name, model in models.items():
            dist.barrier()
            began = time.perf_counter()
            model(x).square().mean().backward()
            if step >= WARMUP:
                taken[name].append(time.perf_counter() - began)
    return {name: (min(times), statistics.median(times)) for name, times in taken.items()}


def _process(rank: int, size: int, steps: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    torch.manual_seed(rank)
    traffic = {name: ours(name, CHANNELS) for name in NAMES}
    found = (traffic, step_times(steps))
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


def measured(size: int, steps: int) -> tuple[dict[str, Traffic], dict[str, tuple[float, float]]]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_process, (size, steps, folder), nprocs=size)
        found: Any = torch.load(Path(folder) / "found.pt", weights_only=False)
    return found


# The model: a message of m bytes takes LATENCY + m / BANDWIDTH.
LATENCY, BANDWIDTH = 5e-6, 25e9
RESNET50 = (53, 26560)  # layers of batch norm, and their channels in all


def gather_time(ranks: int, size: float) -> float:
    """All-gather of `size` bytes from each rank: doubling steps, and all that a rank receives."""
    return math.ceil(math.log2(ranks)) * LATENCY + (ranks - 1) * size / BANDWIDTH


def reduce_time(ranks: int, size: float) -> float:
    """All-reduce of `size` bytes: up and down a tree, pipelined."""
    return 2 * math.ceil(math.log2(ranks)) * LATENCY + 2 * size / BANDWIDTH


def modelled(ranks: int, layers: int, channels: int, width: int) -> tuple[float, float]:
    """Seconds of all layers, forward and backward; `width`: bytes of a statistic."""
    mean = channels / layers
    forward = gather_time(ranks, width * (2 * mean + 1))
    return layers * forward, layers * reduce_time(ranks, 4 * 2 * mean)


def lines(sizes: list[int], steps: int) -> Iterator[str]:
    results = {size: measured(size, steps) for size in sizes}
    yield f"| C = {CHANNELS} | forward | bytes of a rank | backward | bytes of a rank |"
    yield "|---|---|---|---|---|"
    traffic = next(iter(results.values()))[0]
    for name, row in {"torch's SyncBatchNorm": torchs(CHANNELS), **traffic}.items():
        yield f"| {name} | {' | '.join(f'{n:,}' for n in row)} |"
    yield ""
    yield "| processes | local, ms: least · median | synchronised, ms | ratio of the least |"
    yield "|---|---|---|---|"
    for size, (_, times) in results.items():
        shown = [" · ".join(f"{1e3 * t:.1f}" for t in times[name]) for name in ("local", "synced")]
        ratio = times["synced"][0] / times["local"][0]
        yield f"| {size} | {shown[0]} | {shown[1]} | {ratio:.2f} |"
    yield ""
    yield "| ranks of a group | forward, ms | with float32 statistics | backward, ms |"
    yield "|---|---|---|---|"
    for ranks in (2, 8, 64, 1000):
        forward, backward = (1e3 * t for t in modelled(ranks, *RESNET50, 8))
        narrow = 1e3 * modelled(ranks, *RESNET50, 4)[0]
        yield f"| {ranks:,} | {forward:.2f} | {narrow:.2f} | {backward:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    for line in lines(options.ranks, options.steps):
        print(line)


if __name__ == "__main__":
    main()
