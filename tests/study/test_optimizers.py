"""The optimizer of a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from anynorm.study.cell import OPTIMIZERS, Cell
from anynorm.study.optimizers import make_optimizer, make_warmup


def cell(**changes: Any) -> Cell:
    base = {"subject": "mlp-relu", "data": "digits", "norm": "batch", "lr": 0.5}
    return Cell(**{**base, "steps": 1, "seed": 0, **changes})


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def rates(warmup: int, steps: int) -> list[float]:
    optimizer = make_optimizer(cell(warmup=warmup), network())
    schedule = make_warmup(cell(warmup=warmup), optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_the_settings_of_its_cell(name: str) -> None:
    optimizer = make_optimizer(cell(optimizer=name, weight_decay=0.1), network())
    kind = {"sgd": SGD, "momentum": SGD, "adam": Adam, "adamw": AdamW}[name]
    assert type(optimizer) is kind
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    momentum = {group.get("momentum", 0.0) for group in optimizer.param_groups}
    assert momentum == {0.9 if name == "momentum" else 0.0}


def test_weight_decay_spares_biases_gamma_and_beta() -> None:
    model = network()
    optimizer = make_optimizer(cell(weight_decay=0.1), model)
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: decay[parameter] for name, parameter in model.named_parameters()}
    assert {name for name, value in found.items() if value} == {"0.weight", "2.weight"}
    assert len(found) == len(list(model.parameters()))


def test_adamw_without_weight_decay_has_none() -> None:
    # torch's own default is 0.01.
    assert make_optimizer(cell(optimizer="adamw"), network()).param_groups[0]["weight_decay"] == 0


def test_a_step_takes_lr_times_weight_decay_of_a_weight() -> None:
    for name in ("sgd", "adamw"):
        model = nn.Linear(2, 2)
        before = model.weight.detach().clone()
        optimizer = make_optimizer(cell(optimizer=name, weight_decay=0.1), model)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        torch.testing.assert_close(model.weight, before * (1 - 0.5 * 0.1))


def test_warm_up_rises_in_equal_steps_and_stays() -> None:
    assert rates(warmup=4, steps=6) == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]


def test_without_warm_up_the_learning_rate_is_constant() -> None:
    assert rates(warmup=0, steps=3) == [0.5] * 3
