"""The time of a trained network over that of what fold makes of it, in turns on one thread."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

import anynorm
from benchmarks.pretrained import Network

__all__ = ["speed"]

ROUNDS = 11


@torch.inference_mode()
def speed(network: Network) -> dict[str, Any]:
    """The median ratio over the rounds, and its quartiles."""
    model, x = network.build(), network.prepare(network.read()[0][:4])
    with torch.inference_mode(False):
        folded = anynorm.fold(model, x).sure()
    _seconds(model, x), _seconds(folded, x)
    ratios = [_seconds(model, x) / _seconds(folded, x) for _ in range(ROUNDS)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"median": median, "low": low, "high": high, "rounds": ROUNDS}


def _seconds(model: nn.Module, x: Tensor) -> float:
    start = time.perf_counter()
    model(x)
    return time.perf_counter() - start
