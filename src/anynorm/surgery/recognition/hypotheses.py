"""The specifications that a module may have, and which of them its outputs have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations, product

import torch
from torch import Tensor, nn

from anynorm import functional as F
from anynorm.spec import Dialect, Learned, Spec
from anynorm.surgery.recognition.axes import Found
from anynorm.surgery.recognition.copies import called

__all__ = ["Match", "difference", "fitting", "with_eps"]

# ε of 1e-3 changes values of this size by less than one part in 10^10.
_LARGE = 1e4
_CLOSE = 1e-8
_STATISTICS = ((True, "std"), (False, "rms"), (False, "norm"), (False, "std"))


@dataclass(frozen=True)
class Match:
    """A specification with ε, and the names of the parameters that are γ and β."""

    spec: Spec
    weight: str | None
    bias: str | None
    sizes: dict[str, int] = field(default_factory=dict)
    eps: float = 0.0

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        """What the specification computes with the module's parameters."""
        weight, bias = (
            None if name is None else module.get_parameter(name).reshape(-1)
            for name in (self.weight, self.bias)
        )
        return F.normalize(x, self.spec, weight, bias, eps=self.eps, sizes=self.sizes)


def difference(found: Tensor, right: Tensor) -> float:
    """The largest difference over the largest value; infinite if something is not a number."""
    away = (found.double() - right.double()).abs().max()
    relative = away / right.double().abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float("inf") if relative.isnan() else relative.item()


def fitting(module: nn.Module, x: Tensor, patterns: Iterable[Found]) -> Match | None:
    """Return what computes the module's output for large values, where ε plays no part."""
    large = x * _LARGE
    right = called(module, large).detach()
    for match in _candidates(module, x, patterns):
        if difference(match.output(module, large), right) < _CLOSE:
            return match
    return None


def _candidates(module: nn.Module, x: Tensor, patterns: Iterable[Found]) -> Iterator[Match]:
    names = [name for name, _ in module.named_parameters()]
    pairs = permutations([*names, None, None], 2)
    roles = [pair for pair in dict.fromkeys(pairs) if set(names) <= set(pair)]
    sizes_of = {name: parameter.numel() for name, parameter in module.named_parameters()}
    for pattern, sizes in patterns:
        channels = x.shape[pattern.plan(x.dim()).first]
        for (center, scale), (weight, bias) in product(_STATISTICS, roles):
            if bias is not None and sizes_of[bias] != channels:
                continue
            for learned in _learned(
                None if weight is None else sizes_of[weight], bias is not None, channels
            ):
                spec = Spec.of(pattern, center=center, scale=scale, learned=learned)
                yield Match(spec, weight, bias, sizes)


def _learned(gains: int | None, bias: bool, channels: int) -> Iterator[Learned]:
    """What γ and β may be, for the number of values that γ has; None if there is no γ."""
    if gains is None:
        yield Learned("channel" if bias else "none", bias=bias)
    elif gains in (1, channels):
        for offset in (0.0, 1.0):
            yield Learned("channel" if gains == channels else "scalar", offset=offset, bias=bias)


def with_eps(module: nn.Module, match: Match, x: Tensor) -> Match | None:
    """Return `match` with the ε that the module has, and where it stands; None for another form."""
    plain = replace(match.spec, learned=Learned("none"))
    unit = F.normalize(x, plain, eps=0.0, sizes=match.sizes)  # every set has s = 1
    up, down = (called(module, unit * size).detach() for size in (_LARGE, -_LARGE))
    shift, gain = (up + down) / 2, (up - down) / 2

    def sigma(size: float) -> float:
        """σ of values whose s is `size`."""
        z = called(module, unit * size).detach() - shift
        return size * float((gain * gain).sum() / (z * gain).sum())

    tiny, small = sigma(1e-7), sigma(1e-3)
    inside = tiny**2 - 1e-14
    if abs(small**2 - 1e-6 - inside) <= 1e-4 * inside + 1e-15:
        return replace(match, eps=_rounded(inside))
    if match.spec.is_norm and abs(small - max(tiny, 1e-3)) <= 1e-9 * small:
        return replace(
            match, spec=replace(match.spec, dialect=Dialect(eps="max")), eps=_rounded(tiny)
        )
    return None


def _rounded(eps: float) -> float:
    """ε without what rounding added."""
    return 0.0 if eps < 1e-20 else float(f"{eps:.6g}")
