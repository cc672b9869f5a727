"""The optimizer of a run, with its weight decay and the warm-up of its learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from anynorm.study.cell import Cell

__all__ = ["make_optimizer", "make_warmup"]

_MAKERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {"sgd": SGD, "momentum": partial(SGD, momentum=0.9), "adam": Adam, "adamw": AdamW}
)


def make_optimizer(cell: Cell, model: nn.Module) -> Optimizer:
    """Return the optimizer of `cell` for the parameters of `model`.

    Weight decay acts on weights alone, never on biases or on a normalizer's γ and β. It is a
    gradient (L2) in SGD and Adam and a step of its own in AdamW (Loshchilov & Hutter 2019,
    arXiv:1711.05101).
    """
    make = _MAKERS[cell.optimizer]
    # All parameters in one call: the same numbers, in less time where they are small.
    return make(_groups(model, cell.weight_decay), lr=cell.lr, foreach=True)


def make_warmup(cell: Cell, optimizer: Optimizer) -> LambdaLR:
    """Return the schedule that raises the learning rate to the cell's; step it after each update.

    Update k of `cell.warmup` has k / warmup of the learning rate, and every later one all of it.

    >>> cell = Cell(subject="", data="", norm="batch", lr=1.0, steps=4, seed=0, warmup=2)
    >>> optimizer = make_optimizer(cell, nn.Linear(1, 1))
    >>> schedule, rates = make_warmup(cell, optimizer), []
    >>> for _ in range(3):
    ...     rates += schedule.get_last_lr()
    ...     optimizer.step()
    ...     schedule.step()
    >>> rates
    [0.5, 1.0, 1.0]
    """
    # The first update is not wasted on a learning rate of zero.
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, cell.warmup)))


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return one group of parameters, or two where some decay and others do not."""
    parameters = list(model.parameters())
    if not weight_decay:
        return [{"params": parameters, "weight_decay": 0.0}]
    # γ, β and biases are vectors, and weights have two axes or more.
    weights = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = ((weights, weight_decay), (others, 0.0))
    return [{"params": chosen, "weight_decay": decay} for chosen, decay in groups if chosen]
