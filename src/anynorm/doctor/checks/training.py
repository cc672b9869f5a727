"""Training and its settings: checks 3, 12 and 18."""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.doctor.case import CannotRunError, Case, Found, Numbers, Outcome
from anynorm.doctor.record import Record
from anynorm.doctor.significance import f_tail, mean_above_zero
from anynorm.surgery.batches import call, tensors_of
from anynorm.surgery.modes import alone
from anynorm.surgery.normalizers import normalizers
from anynorm.surgery.transaction import copied

__all__ = ["counted_twice", "decay", "loss_gap", "p_of_no_gap"]

BATCHES, SAMPLES = 3, 8  # with fewer, the mean is too uncertain
LEVEL = 0.005
ALIKE = 0.05  # with a larger p, the samples of a batch are taken to be independent
RELATIVE, ABSOLUTE = 0.25, 0.05
TWICE = 1.5


def loss_gap(case: Case) -> Outcome:
    """Check 3."""
    losses = case.measured.losses
    if losses.reason:
        raise CannotRunError(losses.reason)
    layers = [record for record in case.batch_like if record.norm.tracks]
    if not layers:
        return
    gaps, lacking = losses.gaps, f"{BATCHES} full batches or more"
    one_by_one = all(len(gap) > 1 for gap in gaps)
    if sum(map(len, gaps)) < (SAMPLES if one_by_one else BATCHES):
        lacking = f"{SAMPLES} samples or more" if one_by_one else lacking
        raise CannotRunError(lacking)
    by_running, by_batch = statistics.fmean(losses.running), statistics.fmean(losses.batch)
    if not math.isfinite(by_batch):
        return  # check 9 says why
    p = p_of_no_gap(gaps) if math.isfinite(by_running) else 0.0
    least = RELATIVE * abs(by_batch) + ABSOLUTE
    if p < LEVEL and not by_running - by_batch <= least:
        numbers: Numbers = {
            "loss by running statistics": by_running,
            "loss by the batches'": by_batch,
            "p": p,
            "batches": len(gaps),
        }
        message = (
            f"the loss is {by_running:.3g} with the running statistics and {by_batch:.3g} with "
            "those of each batch, without dropout in both"
        )
        yield Found(_likely(case, layers), message, numbers, (by_running - by_batch) / least)


def p_of_no_gap(gaps: list[Tensor]) -> float:
    """p of the hypothesis that the loss is not larger with running statistics.

    If each sample has a loss, samples are compared.  But the samples of a batch share its
    statistics: if batches differ by more than their samples explain, batches are compared.
    """
    if len(gaps[0]) == 1:
        return mean_above_zero(torch.cat(gaps))
    every, size = torch.cat(gaps), len(gaps[0])
    if len(gaps) > 1:
        means = torch.stack([gap.mean() for gap in gaps])
        excess = float(size * means.var() / every.var())
        if f_tail(excess, len(gaps) - 1, len(every) - 1) < ALIKE:
            return mean_above_zero(means)
    return mean_above_zero(every)


def _likely(case: Case, layers: list[Record]) -> str:
    """The first layer whose statistics are off; the first of all if none is."""
    off = [d.record for d in case.drifts if bool(d.off.any())]
    return (off or layers)[0].norm.name


def counted_twice(case: Case) -> Outcome:
    """Check 12."""
    if case.steps is not None:
        yield from _by_counter(case, case.steps)
    if case.survey is not None:
        yield from _by_step(case)


def _by_counter(case: Case, steps: int) -> Outcome:
    calls = {r.norm.name: max(len(r.calls), 1) for r in case.survey.records} if case.survey else {}
    for norm in (one for one in case.tracking if one.counts):
        expected = steps * case.accumulation * calls.get(norm.name, 1)
        counted = norm.batches
        if counted > TWICE * expected:
            numbers: Numbers = {"counted": counted, "expected": expected}
            message = f"{counted} batches were counted in {steps} steps instead of {expected}"
            yield Found(norm.name, message, numbers, counted / max(expected, 1))


def _by_step(case: Case) -> Outcome:
    """Compare the counters before a forward, after it, and after the backward that follows."""
    if not case.tracking:
        return
    before, between, after = _step(case)
    for name in before:
        forward, whole = between[name] - before[name], after[name] - before[name]
        if forward and whole >= 2 * forward:
            numbers: Numbers = {"counted in forward": forward, "counted in a step": whole}
            message = f"a training step counts a batch {whole} times, {whole - forward} of them in "
            message += "backward"
            yield _twice(case, name, message, numbers, whole / forward)


def _step(case: Case) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Compute gradients on a copy, which has no hooks that may step an optimizer."""
    try:
        model = copied(case.model).train()
        with torch.enable_grad(), alone(model.modules()):
            before = _counts(model)
            outputs = tensors_of(call(model, case.example, case.forward))
            between = _counts(model)
            loss = torch.stack([t.float().sum() for t in outputs if t.requires_grad]).sum()
            loss.backward()
            return before, between, _counts(model)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CannotRunError(f"a training step on the first batch: {reason}") from error


def _counts(model: nn.Module) -> dict[str, int]:
    counting = (norm for norm in normalizers(model) if norm.tracks and norm.counts)
    return {norm.name: int(norm.layer.num_batches_tracked) for norm in counting}


def _twice(case: Case, name: str, message: str, numbers: Numbers, effect: float) -> Found:
    layer: Any = case.model.get_submodule(name)
    momentum = layer.momentum
    if momentum is None:
        return Found(name, message, numbers, effect)
    given = float(momentum)
    meant = 1 - math.sqrt(max(1 - given, 0.0))
    numbers = {
        **numbers,
        "momentum": given,
        "momentum in effect": 1 - (1 - given) ** 2,
        "momentum meant": meant,
    }
    fix = f"model.get_submodule({name!r}).momentum = {meant:.4g}"
    return Found(name, message, numbers, effect, fix=fix)


def decay(case: Case) -> Outcome:
    """Check 18."""
    if case.optimizer is None:
        raise CannotRunError("optimizer=")
    owners = {
        id(p): norm.name for norm in case.norms for p in norm.affine if isinstance(p, nn.Parameter)
    }
    groups = case.optimizer.param_groups
    decayed = [
        (owners[id(p)], float(group["weight_decay"]))
        for group in groups
        for p in group["params"]
        if id(p) in owners and group.get("weight_decay")
    ]
    if decayed:
        layers = list(dict.fromkeys(name for name, _ in decayed))
        numbers: Numbers = {
            "parameters": len(decayed),
            "layers": len(layers),
            "weight decay": max(rate for _, rate in decayed),
        }
        others = f" and of {len(layers) - 1} other layers" if len(layers) > 1 else ""
        message = f"γ or β of {layers[0]!r}{others} are in a group with weight decay"
        yield Found(layers[0], message, numbers, 1.0)
