"""The safe repairs: they restore the function that was trained, or do not change the function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from anynorm.doctor.causes.cause import Cause
from anynorm.doctor.finding import Finding
from anynorm.doctor.overruled import OVERRULED
from anynorm.surgery.batches import Batch, Forward, once
from anynorm.surgery.freeze import freeze
from anynorm.surgery.modes import without_gradients
from anynorm.surgery.recalibrate import recompute, start_anew
from anynorm.surgery.receipt import Log, Result
from anynorm.surgery.transaction import Trial, perform

__all__ = ["Patient", "repaired"]

ACCEPT = "accept_data=True (--accept-data) recomputes the statistics anyway"


@dataclass(frozen=True)
class Patient:
    """The model that was examined, and what is needed to examine it again."""

    model: nn.Module
    batches: Iterable[Batch] | None
    example: Batch
    forward: Forward | None
    group: dist.ProcessGroup | None


_Repair = Callable[[nn.Module, Finding, Log], nn.Module]


def repaired(
    findings: Sequence[Finding],
    causes: Sequence[Cause],
    patient: Patient,
    *,
    inplace: bool,
    accept_data: bool,
) -> Result:
    """Apply the safe repair of each finding; recompute the statistics if a finding needs it."""
    kept = _kept_from(findings, causes, accept_data=accept_data)

    def change(target: nn.Module, log: Log) -> nn.Module:
        chosen = []
        for one in findings:
            if reason := kept.get(id(one), ""):
                log.refuse(one.layer or "the model", f"{one.check} ({one.name}): {reason}")
            else:
                chosen.append(one)
        for cause in causes:
            _set_eps(target, cause, log)
        target = _apply(_BEFORE, chosen, target, log)
        set_right = {id(one) for cause in causes if _by_eps(cause) for one in cause.findings}
        stale = [one for one in chosen if _is_stale(one) and id(one) not in set_right]
        if stale:
            _recalibrate(target, stale, _layers_of(stale, causes), patient, log)
        return _apply(_AFTER, chosen, target, log)

    trial = None if patient.example is None else Trial(patient.example, patient.forward)
    with without_gradients(patient.model):
        return perform("doctor", patient.model, change, trial, inplace=inplace)


def _kept_from(
    findings: Sequence[Finding], causes: Sequence[Cause], *, accept_data: bool
) -> dict[int, str]:
    """Return why findings are not repaired, by their identity."""
    by_cause = {id(one): cause for cause in causes for one in cause.findings}
    wrong = next((cause for cause in causes if cause.data), None) if not accept_data else None
    reasons = {}
    for one in findings:
        cause = by_cause.get(id(one))
        if not _safe(one):
            reasons[id(one)] = "" if _by_eps(cause) else one.fix
        elif _is_stale(one):
            reasons[id(one)] = _why_stale(one, cause, wrong, accept_data=accept_data)
    return {key: reason for key, reason in reasons.items() if reason}


def _why_stale(
    finding: Finding, cause: Cause | None, wrong: Cause | None, *, accept_data: bool
) -> str:
    """Why the statistics that a finding is about are not recomputed; "" if they are."""
    if wrong is not None:
        return (
            f"the data look wrong and not the model ({wrong.name}): {wrong.evidence}. "
            f"{wrong.fix or ACCEPT}. If the data are right, {ACCEPT}"
        )
    if OVERRULED in finding.numbers:
        return "the loss shows no harm, so there is nothing to repair"
    if cause is None and finding.severity == "info":
        return "it is information, so there is nothing to repair"
    if cause is None or (cause.data and accept_data):
        return ""
    if cause.refused:
        return f"{cause.name}: {cause.refused}"
    if cause.unproven and not accept_data:
        why = f"{cause.name}: {cause.unproven}"
        return f"{why}. Give labels; or, if these are the data of training, {ACCEPT}"
    return cause.fix if cause.repair == "none" else ""


def _by_eps(cause: Cause | None) -> bool:
    return cause is not None and cause.repair == "eps" and not cause.refused


def _is_stale(finding: Finding) -> bool:
    return finding.check in _STALE and _safe(finding)


def _set_eps(target: nn.Module, cause: Cause, log: Log) -> None:
    for name, value in cause.edits if _by_eps(cause) else ():
        layer = target.get_submodule(name)
        log.change(name, f"ε {float(layer.eps):g} is now {value:g}")  # type: ignore[arg-type]
        layer.eps = value  # type: ignore[assignment]


def _apply(
    repairs: dict[int, _Repair], findings: Sequence[Finding], target: nn.Module, log: Log
) -> nn.Module:
    for one in findings:
        if one.check in repairs and _safe(one):
            target = repairs[one.check](target, one, log)
    return target


def _layers_of(stale: Sequence[Finding], causes: Sequence[Cause]) -> list[str] | None:
    """The layers that are recomputed, where the causes say which; None for all."""
    own = [c for c in causes if any(one is f for one in stale for f in c.findings)]
    if not own or not all(cause.layers for cause in own):
        return None
    caused = {id(one) for cause in own for one in cause.findings}
    named = {name for cause in own for name in cause.layers}
    return sorted(named) if all(id(one) in caused for one in stale) else None


def _recalibrate(
    target: nn.Module,
    stale: list[Finding],
    layers: list[str] | None,
    patient: Patient,
    log: Log,
) -> None:
    reason = _why_not(patient)
    if reason:
        for one in stale:
            log.refuse(one.layer, f"{one.check} ({one.name}): {reason}. Then: {one.fix}")
        return
    _reset(target, stale)
    assert patient.batches is not None
    how: dict[str, Any] = {"forward": patient.forward, "group": patient.group}
    recompute(target, patient.batches, log, layers=layers, **how)


def _why_not(patient: Patient) -> str:
    if patient.batches is None:
        return "there are no batches to recompute the statistics from"
    if once(patient.batches):
        return "the batches can be iterated only once; give a list or a loader"
    broken = [n for n, p in patient.model.named_parameters() if not bool(p.isfinite().all())]
    return f"the parameter {broken[0]!r} is not finite" if broken else ""


def _reset(target: nn.Module, stale: list[Finding]) -> None:
    for name in {one.layer for one in stale if one.check == _NOT_FINITE}:
        start_anew(target.get_submodule(name))


def _momentum(target: nn.Module, finding: Finding, log: Log) -> nn.Module:
    layer = target.get_submodule(finding.layer)
    before, meant = float(layer.momentum), float(finding.numbers["momentum meant"])  # type: ignore[arg-type]
    layer.momentum = meant  # type: ignore[assignment]
    log.change(finding.layer, f"momentum {before:g} is now {meant:g}")
    return target


def _absorb(target: nn.Module, finding: Finding, log: Log) -> nn.Module:
    """Move a bias into the running mean after it, and zero the bias: weights still load."""
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
_AFTER: dict[int, _Repair] = {8: _freeze}  # last, since frozen layers keep their statistics


def _safe(finding: Finding) -> bool:
    """Whether a finding has a repair that applies."""
    if "frozen" in finding.numbers:  # its weights may have been trained with these statistics
        return False
    if finding.check == _TWICE:
        return "momentum meant" in finding.numbers
    if finding.check == _NOT_FINITE:
        return "statistic" in finding.numbers
    return finding.check in _STALE | set(_BEFORE) | set(_AFTER)
