"""The specifications that a module may have, and which of them its outputs have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations, product

import torch
from torch import Tensor, nn

from anynorm import functional as F
from anynorm.activations import ACTIVATIONS
from anynorm.spec import Learned, Spec
from anynorm.surgery.recognition.axes import Found
from anynorm.surgery.recognition.copies import UnusableError, called

__all__ = ["LARGE", "Match", "difference", "fitting"]

LARGE = 1e8  # an ε of 0.1 changes values of this size by one part in 10^9
_CLOSE = 1e-8
_SAME = 1e-9
_FEW = 500  # values are enough to choose among activations
_STATISTICS = ((True, "std"), (False, "rms"), (False, "norm"), (False, "std"))


@dataclass(frozen=True)
class Match:
    """A specification with ε, the names of the parameters that are γ and β, and φ."""

    spec: Spec
    weight: str | None
    bias: str | None
    sizes: dict[str, int] = field(default_factory=dict)
    eps: float = 0.0
    activation: str | None = None

    def output(self, module: nn.Module, x: Tensor) -> Tensor:
        """What the specification computes with the module's parameters."""
        weight, bias = (
            None if name is None else module.get_parameter(name).reshape(-1)
            for name in (self.weight, self.bias)
        )
        return F.normalize(
            *(x, self.spec, weight, bias),
            eps=self.eps,
            sizes=self.sizes,
            activation=self.activation,
        )


def difference(found: Tensor, right: Tensor) -> float:
    """The largest difference over the largest value; infinite if something is not a number."""
    away = (found.double() - right.double()).abs().max()
    relative = away / right.double().abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float("inf") if relative.isnan() else relative.item()


def fitting(module: nn.Module, x: Tensor, patterns: Iterable[Found]) -> Match | None:
    """Return what computes the module's output for large values, where ε plays no part.

    Raises:
        UnusableError: All but a factor fits, and the factor may depend on the number of values.
    """
    large = x * LARGE
    right = called(module, large).detach()
    tried, multiples = [], []
    for match, scaled, shift in _candidates(module, large, patterns):
        tried.append((match, scaled, shift))
        factor = _factor(scaled, shift, right)
        if abs(factor - 1) < _SAME:
            return match
        if factor > 0 and match.spec.learned.gain != "scalar":  # whose factor could be anything
            multiples.append((match, factor))
    if multiples:
        return _times(*multiples[0])
    few = right.reshape(-1)[:_FEW]
    for match, scaled, shift in tried:
        z = (scaled + shift).reshape(-1)[:_FEW]
        for name, phi in ACTIVATIONS.items():
            if difference(phi.forward(z), few) < _CLOSE:
                return replace(match, activation=name)
    return None


def _factor(scaled: Tensor, shift: Tensor, right: Tensor) -> float:
    """k in k · γẑ + β, which is what the module computes; 0 if it does not."""
    factor = ((right - shift) * scaled).sum() / scaled.square().sum()
    return float(factor) if difference(factor * scaled + shift, right) < _CLOSE else 0.0


def _times(match: Match, factor: float) -> Match:
    """The match with `factor` in σ: with n - 1 in place of n it is √((n - 1) / n).

    A set must have as many values whatever the size of the input is.
    """
    spec = match.spec
    parts = spec.pattern.parts
    of_channels = all(part.name == "c" for part in parts if part.shared)
    if not (of_channels and (match.weight or match.bias or parts[-1].name == "c")):
        raise UnusableError(
            f"it is {factor:.6g} times what '{spec.pattern}' gives, and this factor may depend on "
            "the number of values",
            normalizes=True,
        )
    assert spec.scale is not None
    scale = replace(spec.scale, constant=1.0 / factor)
    return replace(match, spec=replace(spec, scale=scale))


def _candidates(
    module: nn.Module, x: Tensor, patterns: Iterable[Found]
) -> Iterator[tuple[Match, Tensor, Tensor]]:
    """Each match with what it computes of `x`: γẑ, and β."""
    parameters = {name: one.detach().reshape(-1) for name, one in module.named_parameters()}
    pairs = permutations([*parameters, None, None], 2)
    roles = [pair for pair in dict.fromkeys(pairs) if set(parameters) <= set(pair)]
    for (pattern, sizes), (center, name) in product(patterns, _STATISTICS):
        first = pattern.plan(x.dim()).first
        channels = x.shape[first]
        bare = Spec.of(pattern, center=center, scale=name, learned=Learned("none"))
        z = F.normalize(x, bare, eps=0.0, sizes=sizes)

        def along(values: Tensor, first: int = first) -> Tensor:
            return values.reshape(-1, *[1] * (x.dim() - 1 - first))

        for weight, bias in roles:
            if bias is not None and len(parameters[bias]) != channels:
                continue
            gain = None if weight is None else parameters[weight]
            shift = torch.zeros_like(z) if bias is None else along(parameters[bias]) + 0 * z
            for learned in _learned(gain, bias is not None, channels):
                scaled = z if gain is None else z * along(gain + learned.offset)
                yield Match(replace(bare, learned=learned), weight, bias, sizes), scaled, shift


def _learned(gain: Tensor | None, bias: bool, channels: int) -> Iterator[Learned]:
    """What γ and β may be, for the values that γ has; None if there is no γ."""
    if gain is None:
        yield Learned("channel" if bias else "none", bias=bias)
    elif len(gain) in (1, channels):
        for offset in (0.0, 1.0):
            yield Learned(
                "channel" if len(gain) == channels else "scalar", offset=offset, bias=bias
            )
