"""ε and where it stands, found from small inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from anynorm import functional as F
from anynorm.activations import ACTIVATIONS
from anynorm.spec import Dialect, Learned
from anynorm.surgery.recognition.copies import called
from anynorm.surgery.recognition.hypotheses import LARGE, Match

__all__ = ["with_eps"]

_SAME = 1e-9
_SIZES = tuple(10.0**power for power in range(2, -19, -1))
# By name: ε from σ and s, and σ from s and ε.
_FORMS: dict[str, tuple[Callable[[float, float], float], Callable[[float, float], float]]] = {
    "inside": (lambda sigma, s: sigma**2 - s**2, lambda s, eps: (s**2 + eps) ** 0.5),
    "outside": (lambda sigma, s: sigma - s, lambda s, eps: s + eps),
    "max": (lambda sigma, _: sigma, max),
}


def with_eps(module: nn.Module, match: Match, x: Tensor) -> Match | None:
    """Return `match` with the ε that the module has, and where it stands; None for another form."""
    plain = replace(match.spec, learned=Learned("none"))
    unit = F.normalize(x, plain, eps=0.0, sizes=match.sizes)  # every set has s = 1
    up, down = (
        replace(match, activation=None).output(module, unit * size).detach()
        for size in (LARGE, -LARGE)
    )
    shift, gain = (up + down) / 2, (up - down) / 2

    def sigma(s: float) -> float:
        """σ of values whose scale is s."""
        y = called(module, unit * s).detach()
        some, z = _before(match.activation, y, shift, gain)
        return s * float((gain * gain)[some].sum() / ((z - shift) * gain)[some].sum())

    sigmas = {}
    for s in _SIZES:
        sigmas[s] = sigma(s)
        if sigmas[s] > 3 * s:  # ε outweighs s
            break
    else:
        return match
    forms = ("inside",) if match.spec.uses_batch else _FORMS
    for form in forms:
        of_sigma, of_eps = _FORMS[form]
        eps = of_sigma(sigmas[s], s)
        if all(abs(of_eps(one, eps) - right) <= _SAME * right for one, right in sigmas.items()):
            dialect = Dialect(eps=form)  # type: ignore[arg-type]
            return replace(match, spec=replace(match.spec, dialect=dialect), eps=_rounded(eps))
    return None


def _before(name: str | None, y: Tensor, shift: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """z with y = φ(z), and where it is known: between β and β + 5, where every φ increases."""
    if name is None:
        return torch.ones_like(y, dtype=torch.bool), y
    phi = ACTIVATIONS[name].forward
    low, high = shift.clone(), shift + gain
    some = (gain > 0) & (high < 5)
    for _ in range(100):
        middle = (low + high) / 2
        below = phi(middle) < y
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return some, (low + high) / 2


def _rounded(eps: float) -> float:
    """ε without what rounding added."""
    short = float(f"{eps:.6g}")
    return short if abs(short - eps) <= 1e-8 * eps else eps
