"""What 16-bit numbers cannot hold: checks 26 to 28."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from anynorm.doctor.case import Case, Found, Numbers, Outcome
from anynorm.ops.formula import SIXTEEN_BITS
from anynorm.surgery.normalizers import Normalizer

__all__ = ["near_range", "stored", "stuck"]

HEADROOM = 8  # the factor that is left up to the largest float16
LARGEST = torch.finfo(torch.float16).max


def _type(x: Tensor | torch.dtype) -> str:
    return str(x if isinstance(x, torch.dtype) else x.dtype).removeprefix("torch.")


def _lost_below(dtype: torch.dtype) -> float:
    """The relative change below which rounding takes every change back.

    It is half the distance from a power of 2 to the next smaller number; elsewhere more is lost.
    """
    return torch.finfo(dtype).eps / 4


def stored(case: Case) -> Outcome:
    """Check 26."""
    for norm in case.norms:
        names = ("running_mean", "running_var", "running_cov")
        kept = {name: getattr(norm.layer, name, None) for name in names}
        narrow = {n: t for n, t in kept.items() if t is not None and t.dtype in SIXTEEN_BITS}
        if not narrow or not norm.keeps:
            continue
        moving = norm.module.training and norm.moves
        kind = next(iter(narrow.values())).dtype
        step = _lost_below(kind)
        message = f"{' and '.join(narrow)} are stored in {_type(kind)}"
        if norm.moves:
            message += f": an update that changes a value by less than {step:.2g} of it is lost"
        numbers: Numbers = {"type": _type(kind), "smallest relative change": step}
        severity = "warning" if moving else "info"
        yield Found(norm.name, message, numbers, 1.0, severity)


def stuck(case: Case) -> Outcome:
    """Check 27."""
    alike = [norm for norm in case.norms if _is_at_one(norm)]
    if not alike:
        return
    owned = {id(p) for p in _trained(case)}
    sure = [norm for norm in alike if id(norm.layer.weight) in owned]
    first = (sure or alike)[0]
    gamma: Tensor = first.layer.weight
    lost = _lost_below(gamma.dtype)
    count = len(sure or alike)
    of = sum(norm.affine[0] is not None for norm in case.norms)
    numbers: Numbers = {"layers": count, "of": of, "type": _type(gamma), "lost below": lost}
    if (rate := _rate(case, gamma)) is not None:
        numbers["learning rate"] = rate
    message = (
        f"γ is exactly 1 in all channels of {count} of {of} layers. It is stored in "
        f"{_type(gamma)}, where a step from 1 that is smaller than {lost:.2g} is lost"
    )
    if sure:
        message += ", and the optimizer has trained it"
    elif case.steps is None:
        message += ". If the model was trained, γ never moved"
    trained = bool(sure) or case.steps is not None
    yield Found(first.name, message, numbers, 1.0, "warning" if trained else "info")


def _is_at_one(norm: Normalizer) -> bool:
    """Whether γ is a 16-bit parameter that is trained, and 1 in every channel."""
    gamma = norm.affine[0]
    parameter = norm.layer.weight
    if not isinstance(parameter, nn.Parameter) or not parameter.requires_grad:
        return False
    # A γ that is stored as 1 + w starts at w = 0, around which no step is lost.
    narrow = parameter.dtype in SIXTEEN_BITS and not norm.spec.learned.offset
    return gamma is not None and narrow and bool((gamma == 1).all())


def _trained(case: Case) -> Iterator[Tensor]:
    """The parameters for which the optimizer keeps a state that is not 0."""
    if case.optimizer is None:
        return
    for group in case.optimizer.param_groups:
        for parameter in group["params"]:
            state = case.optimizer.state.get(parameter, {})
            kept = [t for t in state.values() if isinstance(t, Tensor) and t.numel() > 1]
            if any(bool(t.any()) for t in kept):
                yield parameter


def _rate(case: Case, parameter: Tensor) -> float | None:
    groups = [] if case.optimizer is None else case.optimizer.param_groups
    rates = [g["lr"] for g in groups if any(p is parameter for p in g["params"]) and "lr" in g]
    return float(rates[0]) if rates else None


def near_range(case: Case) -> Outcome:
    """Check 28."""
    for record in case.measured.records:
        seen = record.magnitudes
        in_float16 = seen.dtype is torch.float16
        numbers: Numbers = {"largest": seen.largest, "channel": seen.channel, "limit": LARGEST}
        told = f"the largest input is {seen.largest:.3g} (channel {seen.channel})"
        limit = f"float16's largest number, {LARGEST:.0f}"
        if seen.largest > LARGEST / HEADROOM:
            near = f"within a factor of {HEADROOM} of" if seen.largest <= LARGEST else "beyond"
            message = f"{told}, {near} {limit}"
            message += "" if in_float16 else f"; the model runs in {_type(seen.dtype)}"
            effect = seen.largest * HEADROOM / LARGEST
            yield Found(record.norm.name, message, numbers, effect, "" if in_float16 else "info")
        elif in_float16 and seen.largest**2 > LARGEST and _squares_in_float16(record.norm):
            message = (
                f"{told}, and its square is beyond {limit}; the module computes squares in float16"
            )
            yield Found(record.norm.name, message, numbers, seen.largest**2 / LARGEST)


@torch.no_grad()
def _squares_in_float16(norm: Normalizer) -> bool:
    """Whether values of 1,000, whose squares float16 cannot hold, come out as other values."""
    if norm.recognition is None:
        return False  # torch's layers and anynorm's compute in float32
    x = torch.full((2, *norm.layer.channels), 1e3, dtype=torch.float16)
    x[:, ::2] *= -1
    x = x.to(norm.layer.weight.device if norm.layer.weight is not None else "cpu")
    try:
        right, found = norm.layer(x), norm.module(x)
    except (RuntimeError, ValueError):
        return False
    return not torch.allclose(right.float(), found.float(), rtol=0.05, atol=0.05)
