"""Save and restore all state that a measurement may change, bit for bit."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from anynorm.surgery.model import need_shapes

__all__ = ["Snapshot", "preserved", "state_preserved"]

Restore = Callable[[], None]
_PLAIN = (dict, OrderedDict)


class Snapshot:
    """The state of a model, of its optimizer and of the random generators at one moment.

    Saved are parameters, their ``requires_grad`` and ``.grad`` (the tensor object or ``None``, and
    its values), buffers, the attributes of every module (modes, counters, tensors outside of
    buffers), the optimizer's state and options, and the random state of torch (CUDA too, if it is
    in use), NumPy and Python. The state of objects to which attributes refer is not saved.

    `restore` may be called any number of times. So stochastic layers can be repeated: every
    evaluation of a measurement starts from the same state and draws the same masks.

    >>> model = nn.Linear(2, 1)
    >>> before = model.weight.detach().clone()
    >>> state = Snapshot(model)
    >>> _ = model.weight.data.zero_()
    >>> state.restore()
    >>> torch.equal(model.weight, before)
    True
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer | None = None) -> None:
        need_shapes(model)
        parameters = _parameters(model, optimizer)
        leaves = [p for p in parameters if p.is_leaf]  # the copy of a scripted model has no leaves
        tensors = [*parameters, *(p.grad for p in leaves if p.grad is not None)]
        self._restores = [
            *(_attributes(module) for module in model.modules()),
            *([] if optimizer is None else [_attributes(optimizer), _optimizer(optimizer)]),
            _gradients(leaves),
            _values([*tensors, *model.buffers()]),
            _random_state(),
        ]

    def restore(self) -> None:
        """Restore the state of the snapshot."""
        for restore in self._restores:
            restore()


@contextmanager
def preserved(model: nn.Module, optimizer: Optimizer | None = None) -> Iterator[Snapshot]:
    """Take a snapshot, and restore it at the end of the block, also after an error.

    >>> model = nn.BatchNorm1d(3)
    >>> with preserved(model):
    ...     _ = model(torch.randn(8, 3))
    >>> int(model.num_batches_tracked)
    0
    """
    snapshot = Snapshot(model, optimizer)
    try:
        yield snapshot
    finally:
        snapshot.restore()


@contextmanager
def state_preserved(model: nn.Module) -> Iterator[None]:
    """Restore at the end what a forward pass may change: all but parameters and gradients.

    >>> model = nn.BatchNorm1d(3)
    >>> with state_preserved(model):
    ...     _ = model(torch.randn(8, 3))
    >>> int(model.num_batches_tracked)
    0
    """
    attributes = [_attributes(module) for module in model.modules()]
    restores = [*attributes, _values(list(model.buffers())), _random_state()]
    try:
        yield
    finally:
        for restore in restores:
            restore()


def _parameters(model: nn.Module, optimizer: Optimizer | None) -> list[Tensor]:
    groups = [] if optimizer is None else optimizer.param_groups
    both = [*model.parameters(), *(p for group in groups for p in group["params"])]
    return list(dict.fromkeys(both))


def _values(tensors: list[Tensor]) -> Restore:
    # Tensors made in inference mode can only be written in inference mode.
    modes = ((True, torch.inference_mode), (False, torch.no_grad))
    groups = [(mode, [t for t in tensors if t.is_inference() is own]) for own, mode in modes]
    kept = [(mode, group, [t.detach().clone() for t in group]) for mode, group in groups if group]

    def restore() -> None:
        for mode, group, copies in kept:
            with mode():
                torch._foreach_copy_(group, copies)

    return restore


def _gradients(parameters: list[Tensor]) -> Restore:
    gradients = [(parameter.grad, parameter.requires_grad) for parameter in parameters]

    def restore() -> None:
        for parameter, (gradient, trained) in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
            if parameter.requires_grad != trained:
                parameter.requires_grad_(trained)

    return restore


def _attributes(owner: object) -> Restore:
    """Save an object's class and attributes, and one level of the entries of those that are dicts.

    One level is enough to restore a buffer that a forward pass replaced by a new tensor.
    Dictionaries of other classes are not saved, because they may not be writable.
    """
    attributes, kind = vars(owner), type(owner)
    kept = dict(attributes)
    inner = [(value, value.copy()) for value in kept.values() if type(value) in _PLAIN]

    def restore() -> None:
        if type(owner) is not kind:
            owner.__class__ = kind
        _refill(attributes, kept)
        for value, entries in inner:
            if value or entries:
                _refill(value, entries)

    return restore


def _optimizer(optimizer: Optimizer) -> Restore:
    state = {parameter: copy.deepcopy(entry) for parameter, entry in optimizer.state.items()}
    groups = [(group, dict(group)) for group in optimizer.param_groups]

    def restore() -> None:
        _refill(optimizer.state, {p: copy.deepcopy(entry) for p, entry in state.items()})
        for group, entries in groups:
            _refill(group, entries)

    return restore


def _refill(live: dict[Any, Any], entries: dict[Any, Any]) -> None:
    live.clear()
    live.update(entries)


def _cuda_in_use() -> bool:
    return torch.cuda.is_initialized()  # type: ignore[no-any-return]


def _random_state() -> Restore:
    cpu, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else []

    def restore() -> None:
        torch.set_rng_state(cpu)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return restore
