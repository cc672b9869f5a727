"""Which layers were examined, and which were not, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from anynorm.doctor.case import Case
from anynorm.doctor.undecided import Undecided
from anynorm.surgery.unmatched import not_understood

__all__ = ["tally"]


def tally(
    case: Case, undecided: Iterable[Undecided]
) -> tuple[tuple[str, ...], dict[str, str], bool]:
    """Name the layers that were examined, and the others with the reason.

    The bool says whether one of the others may hide a fault. A layer that no batch reaches does
    not count, because it has no effect on the predictions.
    """
    hidden = dict(not_understood(case.model, replace(case.found, functional={})))
    known = {norm.name for norm in case.norms}
    for name, call in case.found.functional.items():
        if name not in known:
            hidden[name] = f"{call.function} is no layer that is examined; use a layer of torch.nn"
    hidden |= {one.layer: f"too few data: {one.message}" for one in undecided}
    reached = None
    if case.survey is not None:
        reached = {record.norm.name for record in case.survey.records}
    idle = {
        norm.name: "no batch reached it"
        for norm in case.norms
        if reached is not None and norm.name not in reached
    }
    not_examined = {**idle, **hidden}
    examined = tuple(norm.name for norm in case.norms if norm.name not in not_examined)
    return examined, not_examined, bool(hidden)
