"""Change a model on a copy or in place, measure the outputs, and undo the change if they differ."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, call, tensors_of
from anynorm.surgery.model import need_values
from anynorm.surgery.modes import evaluating
from anynorm.surgery.receipt import Difference, Log, Model, Receipt, Result
from anynorm.surgery.snapshot import Snapshot, preserved
from anynorm.surgery.unmatched import not_understood

__all__ = ["Change", "Trial", "copied", "perform"]

Change = Callable[[nn.Module, Log], nn.Module]


@dataclass(frozen=True)
class Trial:
    """The example input on which a change is measured, in eval mode, and what it may change.

    `tolerance` bounds the relative difference of the outputs; None allows any.  Raises
    `AnynormError` for one that no difference could keep.
    """

    example: Batch
    forward: Forward | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None and not self.tolerance >= 0:
            raise AnynormError(
                f"tolerance={self.tolerance} must be 0 or more. Give the largest relative "
                "difference that is allowed, such as 1e-4, or None for any."
            )

    def outputs(self, model: nn.Module) -> list[Tensor]:
        """The outputs of the model on the example; the state of the model does not change."""
        need_values(model)
        with preserved(model), evaluating(model):
            return [t.clone() for t in tensors_of(call(model, self.example, self.forward))]


def perform(
    verb: str, model: Model, change: Change, trial: Trial | None, *, inplace: bool = False
) -> Result[Model]:
    """Apply `change` to `model` or a copy, measure it, and undo it if the outputs differ too much.

    Whatever is raised meanwhile leaves `model` as it was.
    """
    before = None if trial is None else trial.outputs(model)
    target, log = model if inplace else copied(model), Log()
    snapshot = Snapshot(target)
    try:
        changed = change(target, log)
        _tell_the_rest(changed, log)
        found = None
        if trial is not None and before is not None:
            found = Difference.between(before, trial.outputs(changed))
    except BaseException:
        snapshot.restore()
        raise
    tolerance = None if trial is None else trial.tolerance
    off = found is not None and tolerance is not None and not _allowed(found, tolerance)
    if off:
        snapshot.restore()
    receipt = Receipt(
        verb, tuple(log.changed), tuple(log.refused), log.facts, found, tolerance, off
    )
    return Result(cast(Model, target if off else changed), receipt)


def _tell_the_rest(model: nn.Module, log: Log) -> None:
    """Log layers of unknown classes as refused, and say what was searched if nothing matched."""
    if log.search is None:
        return
    if not (log.changed or log.refused):
        log.facts["nothing matched"] = log.search.outcome(model, log.found)
    modules, told = dict(model.named_modules()), {note.layer for note in log.refused}
    for name, reason in not_understood(model, log.found):
        if name not in told and (name not in modules or log.search.unknown(name, modules[name])):
            log.refuse(name, reason)


def _allowed(found: Difference, tolerance: float) -> bool:
    # Outputs without a finite value before the change say nothing about it.
    return found.compared and found.relative <= tolerance


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy; raises `AnynormError` for a model that cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise AnynormError(
            f"{type(model).__name__} cannot be copied: {error}. Give inplace=True to change the "
            "model itself."
        ) from error
