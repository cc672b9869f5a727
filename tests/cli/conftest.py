"""A folder with a user's module: factories and functions that a command line can name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))

def loose():
    model = net()
    model[1].eps = 1e-3
    return model

class Foreign(nn.Module):
    def forward(self, x):
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()

def foreign():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), Foreign())

def batch_alone():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))

ENDS = iter([torch.randn(4, 1, 6, 6) for _ in range(2)])

def once():
    return ENDS

def bare():
    return nn.Sequential(nn.Linear(3, 2))

def wide(width):
    return net()

def broken():
    raise RuntimeError("no [bold]weights")

def number():
    return 3

def pairs():
    return [(torch.randn(4, 1, 6, 6), torch.zeros(4)) for _ in range(2)]

def dicts():
    return [{"input": torch.randn(4, 1, 6, 6)} for _ in range(2)]

def stream():
    for _ in range(2):
        yield torch.randn(4, 1, 6, 6)

ONE = iter(pairs())

def dry():
    return ONE

def sets():
    x, y = torch.randn(65, 1, 6, 6), torch.zeros(65).long()
    return (x, y), (x[:8], y[:8])

def datasets():
    return [torch.utils.data.TensorDataset(x, y) for x, y in sets()]

def loaders():
    return tuple(torch.utils.data.DataLoader(one, batch_size=13) for one in datasets())

def stops():
    raise KeyboardInterrupt

def closes_output():
    import sys
    sys.stdout.close()
    return net()

def quits():
    raise SystemExit(0)

def quits_later():
    yield torch.randn(4, 1, 6, 6)
    raise SystemExit(0)

def quits_on(*values):
    raise SystemExit(0)

def empty():
    return []

def tensor():
    return torch.zeros(2, 1, 6, 6)

def twice(model, batch):
    return 2 * model(batch[0])

def loss(output, batch):
    return output.square().mean()

def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.1)
"""


@pytest.fixture(autouse=True)
def keep_warnings() -> Iterator[None]:
    """The command line has its own way to show warnings."""
    with warnings.catch_warnings():
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with the module ``nets`` in it."""
    (tmp_path / "nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("nets", None)
