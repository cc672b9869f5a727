"""A model that is handed over in train mode: check 25."""

from __future__ import annotations

from anynorm.doctor.case import Case, Found, Numbers, Outcome

__all__ = ["handed_over"]


def handed_over(case: Case) -> Outcome:
    """Check 25."""
    training = [norm for norm in case.tracking if norm.module.training]
    if training:
        numbers: Numbers = {"layers in train mode": len(training), "of": len(case.tracking)}
        layers = f"{len(training)} of {len(case.tracking)} layers with running statistics"
        message = (
            f"{layers} are in train mode: predictions depend on the batch, and each call changes "
            "the statistics. The other checks measure in eval mode"
        )
        yield Found("", message, numbers, 1.0)
