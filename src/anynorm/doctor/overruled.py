"""With labels the loss decides: a fault that does not raise it is information, not an error."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from anynorm.doctor.case import Case
from anynorm.doctor.causes.inputs import preprocessing
from anynorm.doctor.causes.ward import Ward
from anynorm.doctor.finding import Finding

__all__ = ["OVERRULED", "judged"]

OVERRULED = "overruled by"  # the key in the numbers of such a finding
_CHECKS = (1, 2, 4)
_LOSS = 3


def judged(findings: Sequence[Finding], case: Case, ward: Ward, ran: set[int]) -> list[Finding]:
    """Turn findings of checks 1, 2 and 4 into information if the loss shows no harm.

    It shows no harm if check 3 ran and found nothing, recomputed statistics do not lower the loss
    on other samples than those they are from, and no change of the input lowers it.
    """
    severe = [one for one in findings if one.check in _CHECKS and one.severity != "info"]
    losses = None if case.survey is None else case.survey.losses
    if not severe or losses is None or not losses.running or _LOSS not in ran:
        return list(findings)
    if any(one.check == _LOSS for one in findings):
        return list(findings)
    if ward.recalibrated().works or preprocessing(ward) is not None:
        return list(findings)  # a repair lowers the loss
    running, batch = statistics.fmean(losses.running), statistics.fmean(losses.batch)
    words = (
        f"; the loss shows no harm: {running:.3g} with the running statistics, {batch:.3g} with "
        "those of each batch"
    )
    return [_lowered(one, words) if any(one is f for f in severe) else one for one in findings]


def _lowered(finding: Finding, words: str) -> Finding:
    return replace(
        finding,
        severity="info",
        message=finding.message + words,
        numbers={**finding.numbers, OVERRULED: "the loss"},
    )
