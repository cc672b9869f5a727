"""Running statistics that differ from those of the data: checks 1, 2, 4, 13, 14 and 23."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from anynorm.doctor.case import CannotRunError, Case, Found, Numbers, Outcome
from anynorm.doctor.drift import ERROR, MEAN, VARIANCE, Drift
from anynorm.doctor.geometry import double
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.streaming_stats import in_group

__all__ = ["averaged", "described", "leftover", "mean", "ranks", "target", "variance"]

LEFT = 1e-3
_RANK = {"info": 0, "warning": 1, "error": 2}
BEYOND = 2  # times the effect on the model's own batches
MOVED = 0.05  # σ, over all channels of a layer


def mean(case: Case) -> Outcome:
    """Check 1."""
    yield from _after_the_first(case, lambda drift: drift.mean_off, _mean)


def variance(case: Case) -> Outcome:
    """Check 2."""
    yield from _after_the_first(case, lambda drift: drift.variance_off, _variance)


def averaged(case: Case) -> Outcome:
    """Check 13."""
    yield from _either(case.drifts_averaged)


def target(case: Case) -> Outcome:
    """Check 23."""
    own = {found.layer: found.effect for found in _either(case.drifts)} if case.survey else {}
    for found in _either(case.drifts_on_target):
        if found.effect > BEYOND * own.get(found.layer, 0.0):
            yield found


def _after_the_first(
    case: Case,
    off: Callable[[Drift], Tensor],
    describe: Callable[[Drift], Found],
) -> Outcome:
    """Findings in the order of the forward pass; later ones may be a consequence of the first."""
    first = ""
    for drift in case.drifts:
        if bool(off(drift).any()):
            yield _explained(describe(drift), first, case)
        if bool(drift.off.any()):
            first = first or _name(drift)


def _explained(found: Found, first: str, case: Case) -> Found:
    """Add to a finding what indicates its cause."""
    message, numbers = found.message, found.numbers
    if found.layer in case.right_with_dropout:
        message += "; with dropout on, as in training, it is right"
        numbers = {**numbers, "with dropout on": "right"}
    elif first:
        message += f"; this may be a consequence of the earlier layer {first!r}"
        numbers = {**numbers, "first off": first}
    return found._replace(message=message, numbers=numbers)


def described(drift: Drift) -> list[Found]:
    """The findings on a layer: on its mean, its variance, both or none."""
    by_mean = [_mean(drift)] if bool(drift.mean_off.any()) else []
    return by_mean + ([_variance(drift)] if bool(drift.variance_off.any()) else [])


def _either(found: Sequence[Drift]) -> Outcome:
    for drift in found:
        if both := described(drift):
            worse = max(both, key=lambda one: (_RANK[one.severity], one.effect))
            numbers = {k: v for one in both for k, v in one.numbers.items()}
            yield worse._replace(numbers=numbers)


def _name(drift: Drift) -> str:
    return drift.record.norm.name


def _severity(drift: Drift, sure: Tensor, moved: float) -> str:
    """The severity of a deviation. If a few channels are slightly off, later layers hardly notice.

    The weights after a frozen layer may have been trained with its statistics, so it is no error.
    """
    if bool(sure.any()) and not _frozen(drift):
        return "error"
    return "warning" if moved > MOVED else "info"


def _frozen(drift: Drift) -> bool:
    return not drift.record.norm.tracks


def _mean(drift: Drift) -> Found:
    module, count = drift.record.norm.layer, int(drift.mean_off.sum())
    worst = _worst(drift.mean, drift.mean_off, drift.mean_sure)
    away = abs(float(drift.mean[worst]))
    numbers: Numbers = {
        "channels, mean": f"{count} of {len(drift.mean)}",
        "worst channel, mean": worst,
        "running mean": float(module.running_mean[worst]),
        "mean of the data": float(drift.record.inputs.values.mean[worst]),
        "difference in σ": away,
        "outputs off by σ, mean": drift.moved[0],
    }
    message = f"the running mean is off in {count} of {len(drift.mean)} channels, by up to "
    message += f"{away:.2g} σ (channel {worst})"
    message += _as_frozen(drift, numbers)
    effect = away / MEAN
    severity = _severity(drift, drift.mean_sure, drift.moved[0])
    return Found(_name(drift), message, numbers, effect, severity, _fix(drift))


def _variance(drift: Drift) -> Found:
    module, count = drift.record.norm.layer, int(drift.variance_off.sum())
    worst = _worst(drift.variance, drift.variance_off, drift.variance_sure)
    log_ratio = float(drift.variance[worst])
    numbers: Numbers = {
        "channels, variance": f"{count} of {len(drift.variance)}",
        "worst channel, variance": worst,
        "running variance": float(module.running_var[worst]),
        "variance of the data": float(drift.record.inputs.values.variance[worst]),
        "ratio": math.exp(log_ratio),
        "outputs off by σ, variance": drift.moved[1],
    }
    message = f"the running variance is off in {count} of {len(drift.variance)} channels, by up to "
    message += f"a factor of {math.exp(abs(log_ratio)):.3g} (channel {worst})"
    message += _as_frozen(drift, numbers)
    effect = abs(log_ratio) / VARIANCE
    severity = _severity(drift, drift.variance_sure, drift.moved[1])
    return Found(_name(drift), message, numbers, effect, severity, _fix(drift))


def _as_frozen(drift: Drift, numbers: Numbers) -> str:
    if not _frozen(drift):
        return ""
    numbers["frozen"] = "yes"
    return "; the layer is frozen, and its weights may have been trained with these statistics"


def _fix(drift: Drift) -> str:
    """The fix of a frozen layer, which `recalibrate` does not change; "" for others."""
    if not _frozen(drift):
        return ""
    return (
        f"# {_name(drift)!r} is frozen: load the statistics that its weights were trained with, or "
        "put a batch norm in its place and recalibrate"
    )


def _worst(effects: Tensor, *preferred: Tensor) -> int:
    """The channel with the largest effect, among the last nonempty choice of `preferred`."""
    considered = torch.ones_like(preferred[0])
    for choice in preferred:
        considered = choice if bool(choice.any()) else considered
    return int(torch.where(considered, effects.abs(), -1.0).argmax())


def leftover(case: Case) -> Outcome:
    """Check 4: by the count of batches, and by the data if there are any."""
    measured = {} if case.survey is None else {_name(drift): drift for drift in case.drifts}
    every = {norm.name for norm in case.tracking}
    reached = every if case.survey is None else {r.norm.name for r in case.survey.records}
    for norm in case.tracking:
        left = _left(norm)
        drift = measured.get(norm.name)
        if left <= LEFT or (drift is not None and not bool(drift.off.any())):
            continue
        yield _young(norm, left, reached=norm.name in reached)


def _young(norm: Normalizer, left: float, *, reached: bool) -> Found:
    steps, momentum = norm.batches, norm.layer.momentum
    message = f"after {steps} batch{'es' * (steps != 1)} a share of {left:.2g} of the running "
    message += "statistics is still that of a new layer (mean 0, variance 1)"
    message += "" if norm.moves else f"; they do not move in training ({_why_still(norm)})"
    message += "" if reached else "; the given batches do not reach this layer either"
    severity = "info" if not reached else "error" if left > 0.5 else "warning"
    numbers: Numbers = {
        "batches": steps,
        "momentum": "None" if momentum is None else float(momentum),
        "left over": left,
    }
    return Found(norm.name, message, numbers, left / LEFT, severity)


def _why_still(norm: Normalizer) -> str:
    """Why the statistics of a layer do not move."""
    if not norm.layer.track_running_stats:
        return "track_running_stats=False"
    return f"momentum={norm.layer.momentum}" + ("" if norm.counts else ", no count of batches")


def _left(norm: Normalizer) -> float:
    """The share of the initial statistics; 0 if the layer did not start with them.

    Weights are often saved without the count of batches, which then starts again from 0.  If a
    running variance is smaller than the share of the initial one, it did not start at 1.  If the
    statistics do not move with the present momentum, the count says nothing either.
    """
    momentum, steps = norm.layer.momentum, norm.batches
    mean, variance = norm.layer.running_mean, getattr(norm.layer, "running_var", None)
    if not steps or not norm.moves:
        return float(not mean.any() and (variance is None or bool((variance == 1).all())))
    left = 0.0 if momentum is None else float(max(1 - momentum, 0.0) ** steps)
    came_with_weights = variance is not None and bool((double(variance) < 0.99 * left).any())
    return 0.0 if came_with_weights else left


def ranks(case: Case) -> Outcome:
    """Check 14."""
    if not in_group():
        raise CannotRunError("a process group of torch.distributed")
    tested = [norm for norm in case.tracking if norm.layer.running_mean is not None]
    own = {norm.name: _statistics(norm) for norm in tested}
    everyone: list[Any] = [None] * dist.get_world_size(case.group)
    dist.all_gather_object(everyone, own, group=case.group)
    for norm in tested:
        found = [statistics[norm.name] for statistics in everyone if norm.name in statistics]
        means, variances = (torch.stack(part) for part in zip(*found, strict=True))
        yield from _spread(norm, means, variances)


def _statistics(norm: Normalizer) -> tuple[Tensor, Tensor]:
    variance = getattr(norm.layer, "running_var", None)
    mean = double(norm.layer.running_mean).cpu()
    return mean, torch.ones_like(mean) if variance is None else double(variance).cpu()


def _spread(norm: Normalizer, means: Tensor, variances: Tensor) -> Outcome:
    variances = variances + norm.layer.eps
    away = (means.amax(0) - means.amin(0)) / variances.mean(0).sqrt()
    ratio = (variances.amax(0) / variances.amin(0)).log()
    effect = max(float(away.max()) / MEAN, float(ratio.max()) / VARIANCE)
    if effect > 1:
        numbers: Numbers = {
            "ranks": len(means),
            "largest difference of means in σ": float(away.max()),
            "largest ratio of variances": float(ratio.max().exp()),
        }
        message = (
            f"the ranks' running means differ by up to {float(away.max()):.2g} σ, their "
            f"variances by up to a factor of {float(ratio.max().exp()):.3g}"
        )
        severity = "error" if effect >= ERROR else "warning"
        yield Found(norm.name, message, numbers, effect, severity)
