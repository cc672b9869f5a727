"""A study of your own model on Ray: on this machine, or on the cluster at the address given.

    cd examples
    python study_on_ray.py [ray:HOST:PORT]

Stopped at any moment, even by `kill -9`, the same command resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from torch import nn

import anynorm


def network(norm: Callable[[int], nn.Module]) -> nn.Module:
    """A small convolutional network; the study says what `norm(channels)` is."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), norm(8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, stride=2), norm(16), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


if __name__ == "__main__":
    found = anynorm.study(
        "study_on_ray:network",
        "digits",
        norms=["none", "batch", "layer"],
        lrs=[0.03, 0.3],
        inits=[],
        batches=[],
        steps=60,
        seeds=3,
        refine=0,
        on=sys.argv[1] if len(sys.argv) > 1 else "ray",
        store="study-on-ray",
    )
    print(found.verdict["headline"])
    print(f"{len(found.records)} of {found.planned} runs, {found.reused} of them from before")
