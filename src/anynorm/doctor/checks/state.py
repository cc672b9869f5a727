"""Checks 7 to 10, which need only the modules."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from anynorm.doctor.case import Case, Found, Numbers, Outcome
from anynorm.doctor.geometry import double, epsilon
from anynorm.surgery.normalizers import Normalizer

__all__ = ["exploded", "momentum", "moving", "non_finite"]

CONVENTION = 0.5
EXPLODED = 1e4
BELOW = 10  # times ε
COMMON = 1e-3  # the largest default ε of common libraries
BESIDE = 0.1  # of the median variance


def momentum(case: Case) -> Outcome:
    """Check 7."""
    for norm in case.tracking:
        given = norm.layer.momentum
        if given is not None and given >= CONVENTION:
            meant = round(1 - given, 10) or 0.1
            yield Found(
                norm.name,
                f"momentum {given:g} is the weight of the newest batch, so all earlier batches "
                f"together have a weight of {max(1 - given, 0.0):.2g}",
                {"momentum": given, "momentum meant": meant},
                given / CONVENTION,
                fix=f"model.get_submodule({norm.name!r}).momentum = {meant:g}",
            )


def moving(case: Case) -> Outcome:
    """Check 8."""
    others_train = any(p.requires_grad for p in case.model.parameters())
    for norm in case.tracking:
        affine = [p for p in norm.affine if isinstance(p, torch.nn.Parameter)]
        frozen = bool(affine) and not any(p.requires_grad for p in affine)
        if not frozen or not (norm.module.training or others_train):
            continue
        if not norm.moves:  # in whatever mode
            continue
        now = norm.module.training
        yield Found(
            norm.name,
            "γ and β are frozen, but the running statistics "
            + ("move with every batch" if now else "will move when the model is in train mode"),
            {"in train mode": str(now), "batches tracked": norm.batches},
            1.0,
            "warning" if now else "info",
        )


def non_finite(case: Case) -> Outcome:
    """Check 9."""
    yield from _parameters(case)
    for norm in case.norms:
        yield from _statistics(norm)
    if case.survey is not None and all(_finite(p) for p in case.model.parameters()):
        yield from _inputs(case)


def _values(count: int) -> str:
    return "1 value that is" if count == 1 else f"{count} values that are"


def _finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(x.isfinite().all())


def _parameters(case: Case) -> Outcome:
    for name, parameter in case.model.named_parameters():
        if not _finite(parameter):
            count = int((~parameter.isfinite()).sum())
            yield Found(
                name.rpartition(".")[0],
                f"the parameter {name!r} has {_values(count)} not finite",
                {"parameter": name, "not finite": count, "values": parameter.numel()},
                float("inf"),
                fix="model.load_state_dict(state)  # of the last checkpoint that is finite",
            )


def _statistics(norm: Normalizer) -> Outcome:
    for name, statistic in _kept(norm):
        bad = ~statistic.isfinite()
        if name == "running_var":
            bad |= statistic < 0
        if count := int(bad.sum()):
            yield Found(
                norm.name,
                f"{name} has {_values(count)} not finite or negative",
                {"statistic": name, "channels": count, "of": statistic.numel()},
                float("inf"),
            )


def _kept(norm: Normalizer) -> Iterator[tuple[str, Tensor]]:
    for name in ("running_mean", "running_var", "running_cov"):
        statistic = getattr(norm.layer, name, None)
        if statistic is not None:
            yield name, statistic


def _inputs(case: Case) -> Outcome:
    """Only the first layer that such values reach: later layers get them from this one."""
    bad = [record for record in case.measured.records if not record.finite]
    if bad and not any(_statistics_are_bad(norm) for norm in case.norms):
        yield Found(
            bad[0].norm.name,
            "the layer's input is not finite, although all weights are",
            {"layers reached": len(bad)},
            float("inf"),
            fix="assert all(x.isfinite().all() for x, *_ in batches)  # else it is overflow",
        )


def _statistics_are_bad(norm: Normalizer) -> bool:
    return any(True for _ in _statistics(norm))


def exploded(case: Case) -> Outcome:
    """Check 10."""
    for norm in case.norms:
        statistic = getattr(norm.layer, "running_var", None)
        if statistic is None or not norm.fixed or _statistics_are_bad(norm):
            continue
        yield from _large(norm, double(statistic))
        lost = list(_large_eps(norm, double(statistic)))
        yield from lost or _small(norm, double(statistic))


def _usual(norm: Normalizer) -> float:
    """The default ε of this type of layer."""
    for kind in type(norm.layer).__mro__:
        given = inspect.signature(kind).parameters.get("eps") if "__init__" in vars(kind) else None
        if given is not None and isinstance(given.default, float):
            return given.default
    return 1e-5


def _about(norm: Normalizer) -> str:
    """ε in words, with the default if it is another one."""
    eps, usual = epsilon(norm.layer), _usual(norm)
    kind = type(norm.module).__name__
    return f"ε is {eps:g}" if eps == usual else f"ε is {eps:g} (by default {usual:g} in {kind})"


def _large_eps(norm: Normalizer, variance: Tensor) -> Outcome:
    """An ε that was lost when the model was loaded, or comes from another library."""
    eps, middle = epsilon(norm.layer), float(variance.median())
    if eps <= COMMON or eps < BESIDE * middle or eps == _usual(norm):
        return
    numbers: Numbers = {"ε": eps, "usual ε": _usual(norm), "median variance": middle}
    shrunk = 1 - math.sqrt(middle / (middle + eps))
    message = (
        f"{_about(norm)}, and the median running variance is {middle:.2g}, so ε makes outputs "
        f"{100 * shrunk:.0f}% smaller"
    )
    fix = f"model.get_submodule({norm.name!r}).eps = {_usual(norm):g}  # if it was trained with it"
    yield Found(norm.name, message, numbers, eps / max(BESIDE * middle, 1e-30), "warning", fix)


def _large(norm: Normalizer, variance: Tensor) -> Outcome:
    middle = max(float(variance.median()), epsilon(norm.layer))
    ratio = float(variance.max()) / middle
    if ratio > EXPLODED:
        channel = int(variance.argmax())
        numbers: Numbers = {
            "channel": channel,
            "variance": float(variance.max()),
            "median": float(variance.median()),
            "ratio": ratio,
        }
        message = f"the variance of channel {channel} is {ratio:.2g} times the layer's median"
        yield Found(norm.name, message, numbers, ratio / EXPLODED)


def _small(norm: Normalizer, variance: Tensor) -> Outcome:
    below = variance < BELOW * epsilon(norm.layer)
    if count := int(below.sum()):
        smallest = float(variance.min())
        numbers: Numbers = {
            "channels": f"{count} of {len(variance)}",
            "smallest variance": smallest,
            "ε": epsilon(norm.layer),
            "usual ε": _usual(norm),
        }
        message = (
            f"{_about(norm)}, and the variance of {count} of {len(variance)} channels is below "
            f"{BELOW} ε, so ε and not the data scales them"
        )
        whole = count == len(variance)
        effect = min(BELOW * epsilon(norm.layer) / max(smallest, 1e-30), 1e30)
        yield Found(norm.name, message, numbers, effect, "warning" if whole else "info")
