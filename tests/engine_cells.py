"""Cells for the tests of the engines, and the models that they name."""

from __future__ import annotations

import json
from typing import Any

from anynorm.report.files import finite
from anynorm.study.cell import Cell
from anynorm.study.train import run

__all__ = ["SOURCE", "built_in", "cell", "comparable", "expected"]

SOURCE = """
import os, signal, sys, time
from pathlib import Path
from torch import nn
from anynorm.errors import AnynormError

def well(norm):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), norm(10))

def refused(norm):
    raise AnynormError("this is the rule")

def raises(norm):
    raise ArithmeticError("on purpose")

def dies(norm):
    os._exit(7)

def leaves_a_child(norm):
    if (child := os.fork()) == 0:
        time.sleep(600)
        os._exit(0)
    Path(f"child-{child}").touch()
    os.kill(os.getpid(), signal.SIGKILL)

class Quits(nn.Module):
    def forward(self, x):
        sys.exit(0)

def quits(norm):
    return nn.Sequential(well(norm), Quits())

def dies_once(norm):
    try:
        Path("died").touch(exist_ok=False)
    except FileExistsError:
        return well(norm)
    os._exit(7)

def asks_to_stop(norm):
    raise KeyboardInterrupt

def waits(norm):
    time.sleep(600)

class Spins(nn.Module):
    def forward(self, x):
        while True: pass

def spins(norm):
    return nn.Sequential(well(norm), Spins())

def closes_its_pipe(norm):
    os.closerange(3, 1000)
    time.sleep(600)

def slow(norm):
    time.sleep(0.3)
    return well(norm)
"""


def cell(subject: str, **changes: Any) -> Cell:
    """A cell of two steps with a model of `SOURCE`."""
    base = {"subject": f"pool_models:{subject}", "data": "digits", "norm": "batch", "lr": 0.1}
    return Cell(**{**base, "steps": 2, "seed": 0, **changes})


def built_in(seed: int, **changes: Any) -> Cell:
    """A cell of one step with a built-in model."""
    base = {"subject": "cnn", "data": "digits", "norm": "batch", "lr": 0.1, "steps": 1}
    return Cell(**{**base, "seed": seed, **changes})


def comparable(record: dict[str, Any]) -> str:
    """A record without its times, as the store writes it: equal texts are equal bits."""
    return json.dumps(finite({**record, "cost": None}), sort_keys=True)


def expected(cells: list[Cell]) -> dict[str, str]:
    """What this process finds for cells, by their keys."""
    return {one.key: comparable(run(one)) for one in cells}
