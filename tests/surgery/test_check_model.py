"""Every verb refuses what is no model with one error, which says how to come by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import anynorm
from anynorm import surgery
from anynorm.errors import AnynormError
from anynorm.surgery.model import check_model

ROWS = torch.zeros(4, 2)
VERBS: dict[str, Callable[[Any], Any]] = {
    "doctor": anynorm.doctor,
    "doctor with a source": lambda model: anynorm.doctor(
        nn.Linear(2, 2), source=0 if model is None else model
    ),
    "doctor with averaged weights": lambda model: anynorm.doctor(
        nn.Linear(2, 2), averaged=0 if model is None else model
    ),
    "convert": lambda model: anynorm.convert(model, "torch"),
    "fold": lambda model: anynorm.fold(model, ROWS),
    "freeze": anynorm.freeze,
    "manifest": anynorm.manifest,
    "prune": lambda model: anynorm.prune(model, ROWS, ratio=0.5),
    "recalibrate": lambda model: anynorm.recalibrate(model, [ROWS]),
    "slim": lambda model: anynorm.slim(model, torch.optim.SGD([torch.zeros(1)], lr=0.1)),
    "Gammas": surgery.Gammas.of,
    "replace_norms": lambda model: surgery.replace_norms(model, nn.BatchNorm1d),
    "load_into": lambda model: surgery.load_into(model, "weights.safetensors"),
    "save_state": lambda model: surgery.save_state(model, "weights.safetensors"),
    "walk": surgery.walk,
    "normalized": lambda model: anynorm.normalized(model, "batch"),
}
NO_MODELS: dict[str, Any] = {
    "None": None,
    "name": "resnet18",
    "file": Path("model.pt"),
    "state": nn.Linear(2, 2).state_dict(),
    "class": nn.Linear,
    "factory": lambda: nn.Linear(2, 2),
    "list": [nn.Linear(2, 2)],
    "number": 3,
}


@pytest.mark.parametrize("given", NO_MODELS)
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_model(verb: str, given: str) -> None:
    with pytest.raises(AnynormError):
        VERBS[verb](NO_MODELS[given])


def test_a_study_builds_its_models_itself() -> None:
    for given in (None, nn.Linear(2, 2), nn.Linear(2, 2).state_dict(), 3):
        with pytest.raises(AnynormError, match="a name, or the function or class"):
            anynorm.study(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        (None, "return the model"),
        ("resnet18", "Build the model"),
        (nn.Linear(2, 2).state_dict(), "load_state_dict"),
        (nn.Linear, r"Linear\(\.\.\.\)"),
        (lambda: None, "Call it"),
        ([nn.Linear(2, 2)], "Sequential"),
        (torch.optim.SGD([torch.zeros(1)], lr=0.1), "parameters it trains"),
        (3, "the model itself"),
    ],
)
def test_the_fix_follows_from_what_was_given(given: Any, fix: str) -> None:
    with pytest.raises(
        AnynormError, match=rf"fold: model is .* must be a torch.nn.Module. .*{fix}"
    ):
        check_model("fold", given)


def test_the_result_of_a_verb_is_no_model() -> None:
    result = anynorm.freeze(nn.Sequential(nn.BatchNorm1d(2)))
    with pytest.raises(AnynormError, match=r"attribute \.model"):
        anynorm.recalibrate(result, [ROWS])  # type: ignore[arg-type]


def test_models_pass() -> None:
    check_model("fold", nn.Sequential())


@pytest.mark.parametrize("target", [None, 5, ["torch"], nn.Linear(2, 2)], ids=str)
def test_targets_of_convert(target: Any) -> None:
    with pytest.raises(AnynormError, match="target"):
        anynorm.convert(nn.Linear(2, 2), target)
