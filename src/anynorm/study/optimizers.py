"""The optimizer of a run, with its weight decay and the warm-up of its learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from anynorm.study.cell import Cell
from anynorm.surgery.parameter_groups import parameter_groups

__all__ = ["make_optimizer", "make_warmup"]

_MAKERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {"sgd": SGD, "momentum": partial(SGD, momentum=0.9), "adam": Adam, "adamw": AdamW}
)


def make_optimizer(cell: Cell, model: nn.Module) -> Optimizer:
    """Return the optimizer of `cell` for the parameters of `model`.

    Weight decay applies to weights, never to biases or to a normalizer's γ and β. In SGD and Adam
    it is added to the gradient (L2), in AdamW it is a separate step (Loshchilov & Hutter 2019,
    arXiv:1711.05101).
    """
    make = _MAKERS[cell.optimizer]
    # foreach updates all parameters in one call: equal results, and faster for small parameters.
    return make(parameter_groups(model, cell.weight_decay), lr=cell.lr, foreach=True)


def make_warmup(cell: Cell, optimizer: Optimizer) -> LambdaLR:
    """Return the schedule that raises the learning rate to the cell's; step it after each update.

    Update k has the fraction k / `cell.warmup` of the learning rate; later updates have all of it.

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
    # Start at step + 1, so that the first update does not have a learning rate of zero.
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, cell.warmup)))
