"""A few steps of training towards the outputs of another model, without labels."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, call, each, tensors_of
from anynorm.surgery.modes import evaluating

__all__ = ["check_steps", "distill", "output_error"]

_RATE = 3e-3
_CHECKS = 10  # how often the error on held-out inputs is measured
_HELD_OUT = 5  # one batch of so many
_SMALL = 1e-12


def check_steps(steps: int) -> None:
    """Raise `AnynormError` for a number of steps that is none.

    >>> check_steps(0)
    """
    if not isinstance(steps, int) or steps < 0:
        raise AnynormError(f"distill={steps!r}: give a number of steps, 0 or more.")


def distill(
    model: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Batch],
    steps: int,
    forward: Forward | None = None,
) -> str:
    """Train `model` itself towards the outputs of `teacher`, and return what came of it in words.

    Both are in eval mode, so running statistics stay and dropout is off.  Every fifth batch is held
    out, if each pass gives the batches in the same order.  The error on them is measured ten times,
    and the best state is kept, which may be the first.  Adam's rate falls in a cosine.
    """
    held_out = [batch for at, batch in enumerate(each(batches)) if at % _HELD_OUT == 0]
    first = best = output_error(model, teacher, held_out, forward)
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    trained = [p.requires_grad for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    state = copy.deepcopy(model.state_dict())
    with evaluating(model), evaluating(teacher), torch.enable_grad():
        for p in parameters:
            p.requires_grad_()
        for step, batch in zip(range(1, steps + 1), _training(batches), strict=False):
            optimizer.zero_grad()
            _difference(model, teacher, batch, forward).backward()
            optimizer.step()
            schedule.step()
            if step % max(1, steps // _CHECKS) == 0 or step == steps:
                now = output_error(model, teacher, held_out, forward)
                if now < best:
                    best, state = now, copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    for p, was in zip(parameters, trained, strict=True):
        p.requires_grad_(was)
    model.load_state_dict(state)
    return (
        f"in {steps} steps the outputs' error went from {first:.2g} to {best:.2g} of their variance"
    )


def _training(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches that are not held out, again and again."""
    while True:
        number = 0
        for number, batch in enumerate(each(batches)):
            if number % _HELD_OUT:
                yield batch
        if number == 0:
            raise AnynormError(
                "distill needs at least two batches, of which one checks what the others give."
            )


def output_error(
    model: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Batch],
    forward: Forward | None = None,
) -> float:
    """The squared difference of the outputs over their variance, on average over the batches."""
    with evaluating(model), evaluating(teacher):
        errors = [float(_difference(model, teacher, batch, forward)) for batch in each(batches)]
    return sum(errors) / len(errors)


def _difference(
    model: nn.Module, teacher: nn.Module, batch: Batch, forward: Forward | None
) -> Tensor:
    """The error of one batch, on average over the outputs."""
    with torch.no_grad():
        wanted = tensors_of(call(teacher, batch, forward))
    parts = [
        (y - target).square().mean() / target.var(correction=0).clamp_min(_SMALL)
        for y, target in zip(tensors_of(call(model, batch, forward)), wanted, strict=True)
    ]
    return torch.stack(parts).mean()
