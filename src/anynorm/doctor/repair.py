"""The repairs that are safe: they restore what the model was trained to be, or change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import distributed as dist
from torch import nn

from anynorm.doctor.diagnosis import Finding
from anynorm.surgery.batches import Batch, Forward, once
from anynorm.surgery.edit import Trial, perform
from anynorm.surgery.freeze import freeze
from anynorm.surgery.recalibrate import recompute
from anynorm.surgery.receipt import Log, Result

__all__ = ["Patient", "repaired"]


@dataclass(frozen=True)
class Patient:
    """The model that was examined, and what is needed to examine it again."""

    model: nn.Module
    batches: Iterable[Batch] | None
    example: Batch
    forward: Forward | None
    group: dist.ProcessGroup | None


_Repair = Callable[[nn.Module, Finding, Log], nn.Module]


def repaired(findings: Sequence[Finding], patient: Patient, *, inplace: bool) -> Result:
    """Apply what is safe for each finding, and recompute the statistics if any of them asks."""

    def change(target: nn.Module, log: Log) -> nn.Module:
        for one in findings:
            if not _safe(one):
                log.refuse(one.layer or "the model", f"{one.check} ({one.name}): {one.fix}")
        target = _apply(_BEFORE, findings, target, log)
        stale = [one for one in findings if one.check in _STALE and _safe(one)]
        if stale:
            _recalibrate(target, stale, patient, log)
        return _apply(_AFTER, findings, target, log)

    trial = None if patient.example is None else Trial(patient.example, patient.forward)
    return perform("doctor", patient.model, change, trial, inplace=inplace)


def _apply(
    repairs: dict[int, _Repair], findings: Sequence[Finding], target: nn.Module, log: Log
) -> nn.Module:
    for one in findings:
        if one.check in repairs and _safe(one):
            target = repairs[one.check](target, one, log)
    return target


def _recalibrate(target: nn.Module, stale: list[Finding], patient: Patient, log: Log) -> None:
    reason = _why_not(patient)
    if reason:
        for one in stale:
            log.refuse(one.layer, f"{one.check} ({one.name}): {reason}. Then: {one.fix}")
        return
    _reset(target, stale)
    assert patient.batches is not None
    recompute(target, patient.batches, log, forward=patient.forward, group=patient.group)


def _why_not(patient: Patient) -> str:
    if patient.batches is None:
        return "there are no batches to recompute the statistics from"
    if once(patient.batches):
        return "the batches can be gone through only once; give a list or a loader"
    broken = [n for n, p in patient.model.named_parameters() if not bool(p.isfinite().all())]
    return f"the parameter {broken[0]!r} is not finite" if broken else ""


def _reset(target: nn.Module, stale: list[Finding]) -> None:
    for name in {one.layer for one in stale if one.check == _NOT_FINITE}:
        layer = target.get_submodule(name)
        if callable(reset := getattr(layer, "reset_running_stats", None)):
            reset()


def _momentum(target: nn.Module, finding: Finding, log: Log) -> nn.Module:
    layer = target.get_submodule(finding.layer)
    before, meant = float(layer.momentum), float(finding.numbers["momentum meant"])  # type: ignore[arg-type]
    layer.momentum = meant  # type: ignore[assignment]
    log.change(finding.layer, f"momentum {before:g} is now {meant:g}")
    return target


def _absorb(target: nn.Module, finding: Finding, log: Log) -> nn.Module:
    """Move a bias into the running mean behind it; it stays as zeros, so that weights still fit."""
    behind = str(finding.numbers["batch norm"])
    owner = target.get_submodule(finding.layer)
    bias, mean = (
        owner.get_parameter("bias"),
        target.get_submodule(behind).get_buffer("running_mean"),
    )
    with torch.no_grad():
        mean.sub_(bias.to(mean))
        bias.zero_()
    log.change(finding.layer, f"bias folded into the running mean of {behind!r}")
    return target


def _freeze(target: nn.Module, finding: Finding, log: Log) -> nn.Module:
    result = freeze(target, layers=[finding.layer], inplace=True)
    log.changed += result.receipt.changed
    log.refused += result.receipt.refused
    return result.model


_NOT_FINITE, _TWICE = 9, 12
_STALE = {1, 2, 3, 4, _NOT_FINITE, 14}  # recomputing the statistics repairs these
_BEFORE: dict[int, _Repair] = {7: _momentum, _TWICE: _momentum, 16: _absorb}
_AFTER: dict[int, _Repair] = {8: _freeze}  # frozen layers keep the statistics that they have then


def _safe(finding: Finding) -> bool:
    """Whether there is a repair for what was found, and it applies."""
    if "frozen" in finding.numbers:  # its weights may have been trained with these statistics
        return False
    if finding.check == _TWICE:
        return "momentum meant" in finding.numbers
    if finding.check == _NOT_FINITE:
        return "statistic" in finding.numbers
    return finding.check in _STALE | set(_BEFORE) | set(_AFTER)
