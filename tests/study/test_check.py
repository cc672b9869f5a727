"""Bad input is found before any training."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell
from anynorm.study.check import check
from anynorm.study.within import within

SOURCE = """
import time
import torch
from torch import nn

def few_classes(norm):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), norm(6))

def images(norm):
    return nn.Sequential(nn.Conv2d(1, 10, 3), norm(10))

class Pair(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm(64)

    def forward(self, x):
        return self.norm(x.flatten(1)), x

def wrong_input(norm):
    return nn.Sequential(nn.Linear(65, 10), norm(10))

class Turned(nn.Sequential):
    def forward(self, x):
        return super().forward(x).T

def turned(norm):
    return Turned(nn.Linear(10, 10), norm(10))

def sequence(norm):
    return nn.Sequential(nn.Embedding(97, 8), norm(8), nn.Linear(8, 97))

def too_few(norm):
    return nn.Sequential(nn.Embedding(97, 8), norm(8), nn.Linear(8, 10))

def classes_first(norm):
    return nn.Sequential(nn.Embedding(97, 8), norm(8), nn.Linear(8, 97), nn.Flatten(1))

class Spins(nn.Sequential):
    def forward(self, x):
        while True: pass

def spins(norm):
    return Spins(norm(64))

def waits(norm):
    time.sleep(600)

def frozen(norm):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), norm(10)).requires_grad_(False)
"""


def cell(**changes: Any) -> Cell:
    base = {"subject": "mlp-relu", "data": "digits", "norm": "batch", "lr": 0.1}
    return Cell(**{**base, "steps": 1, "seed": 0, **changes})


def test_good_cells_pass_and_leave_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    check([cell(), cell(norm="weight"), cell(subject="deep-linear", data="gaussian")])
    assert torch.equal(state, torch.get_rng_state())


def test_a_users_model_of_sequences_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "check_models.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    check([cell(subject="check_models:sequence", data="python-text")])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"subject": "check_models:too_few", "data": "python-text"},
            r"shape \(60, 64, 10\); it must be \(samples, 64 positions, classes\), with 97 classes",
        ),
        (
            {"subject": "check_models:classes_first", "data": "python-text"},
            r"shape \(60, 6208\); it must be \(samples, 64 positions, classes\)",
        ),
        ({"placement": "pre"}, "'mlp-relu' has no such place"),
        ({"data": "python-text"}, "'mlp-relu' takes no sequences of characters"),
        ({"subject": "char-transformer", "placement": "pre"}, "takes sequences of characters"),
        (
            {"subject": "char-transformer", "data": "python-text"},
            "'char-transformer' has no such place. Choose 'pre' or 'post'",
        ),
        ({"batch": 2000}, "batch 2000 is larger than the training set of 'digits', 1297 samples"),
        ({"norm": "bacth"}, 'Did you mean "batch"'),
        ({"subject": "cnm"}, 'Did you mean "cnn"'),
        ({"data": "digit"}, 'Did you mean "digits"'),
        ({"norm": "group", "norm_options": (("groups", 7),)}, "7"),
        ({"norm": "group", "norm_options": (("grops", 4),)}, 'Did you mean "groups"'),
        ({"batch": 1}, "batch in mlp-relu"),
        (
            {"subject": "check_models:few_classes"},
            r"60 samples has shape \(60, 6\).*10 classes or more.*give float targets",
        ),
        ({"subject": "check_models:images"}, r"it must be \(samples, classes\)"),
        ({"subject": "check_models:wrong_input"}, r"shape \(60, 1, 8, 8\) raised RuntimeError"),
        ({"subject": "check_models:Pair"}, "returned a tuple; its output must be one tensor"),
        ({"subject": "check_models:frozen"}, "has no parameters to train"),
        ({"data": "gaussian", "subject": "check_models:wrong_input"}, r"shape \(60, 10\) raised"),
        (
            {"data": "gaussian", "subject": "check_models:turned"},
            r"shape \(10, 60\).* a row for each sample.*give integer targets",
        ),
    ],
)
def test_bad_cells_are_explained(
    changes: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "check_models.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AnynormError, match=words):
        check([cell(), cell(**changes)])


@pytest.mark.parametrize("name", ["spins", "waits"])
def test_a_model_that_never_returns_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "check_models.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AnynormError, match=f"batch in check_models:{name}: .* after 0.3 seconds"):
        check([cell(subject=f"check_models:{name}")], 0.3)


def test_a_held_out_set_too_small_for_train_mode_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "check_data.py").write_text(
        "import torch\n"
        "def one():\n"
        "    x, y = torch.randn(60, 1, 8, 8), torch.arange(60) % 10\n"
        "    return (x, y), (x[:1], y[:1])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AnynormError, match="on 1 held-out samples raised Expected more than 1"):
        check([cell(data="check_data:one")])


def test_the_smallest_batch_of_a_sweep_is_tried() -> None:
    with pytest.raises(AnynormError, match="batch in mlp-relu"):
        check([cell(batch=60), cell(batch=1), cell(batch=30)])


def test_the_time_limit_holds_where_the_interrupt_is_ignored() -> None:
    """As it is in a process that a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(AnynormError, match="had not finished"), within(0.01, "waiting"):
            threading.Event().wait(60)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
