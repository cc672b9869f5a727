"""Whether a finding of the doctor holds, by a calculation that shares no code with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from anynorm.doctor import Finding

__all__ = ["confirmed"]

Claim = Callable[[Finding, nn.Module, Sequence[Tensor]], bool]
_OFF = 0.1  # σ, as check 1 says
_RATIO = 1.25  # as check 2 says
_SAME = 1e-4


def confirmed(finding: Finding, model: nn.Module, batches: Sequence[Tensor]) -> bool | None:
    """Whether the finding holds; None if there is no other way to tell."""
    claim = _CLAIMS.get(finding.check)
    return None if claim is None else claim(finding, model, batches)


@torch.no_grad()
def _inputs(name: str, model: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """All inputs of a layer with channels on axis 1, as (channels, values) in float64."""
    found: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(
        lambda _, given: found.append(given[0].transpose(0, 1).flatten(1).double())
    )
    try:
        for x in batches:
            model(x)
    finally:
        hook.remove()
    return torch.cat(found, 1)


def _mean_is_off(finding: Finding, model: nn.Module, batches: Sequence[Tensor]) -> bool:
    x, layer = _inputs(finding.layer, model, batches), model.get_submodule(finding.layer)
    off = (x.mean(1) - layer.running_mean).abs() / x.std(1).clamp_min(1e-12)  # type: ignore[operator]
    return bool((off > _OFF).any())


def _variance_is_off(finding: Finding, model: nn.Module, batches: Sequence[Tensor]) -> bool:
    x, layer = _inputs(finding.layer, model, batches), model.get_submodule(finding.layer)
    eps = float(layer.eps)  # type: ignore[arg-type]
    ratio = ((x.var(1) + eps) / (layer.running_var + eps)).log().abs()  # type: ignore[operator]
    return bool((ratio > torch.tensor(_RATIO).log()).any())


def _variance_is_small(finding: Finding, model: nn.Module, _: Sequence[Tensor]) -> bool:
    layer = model.get_submodule(finding.layer)
    variance: Tensor = layer.running_var  # type: ignore[assignment]
    eps = float(layer.eps)  # type: ignore[arg-type]
    large = variance.max() > 1e4 * variance.median().clamp_min(eps)
    return bool(large or (variance < 10 * eps).any() or eps > 0.1 * variance.median())


@torch.no_grad()
def _bias_is_idle(finding: Finding, model: nn.Module, batches: Sequence[Tensor]) -> bool:
    """Without the bias, and with it taken from the running mean, the outputs are the same."""
    other = copy.deepcopy(model)
    layer, norm = (
        other.get_submodule(name) for name in (finding.layer, str(finding.numbers["batch norm"]))
    )
    norm.running_mean -= layer.bias  # type: ignore[operator]
    layer.bias.zero_()  # type: ignore[operator]
    expected, found = model(batches[0]), other(batches[0])
    return bool((found - expected).abs().max() <= _SAME * expected.abs().max())


def _channels_are_dead(finding: Finding, model: nn.Module, batches: Sequence[Tensor]) -> bool:
    """Channels with a small γ or, behind running statistics, with a nearly constant output."""
    layer = model.get_submodule(finding.layer)
    gain: Tensor = layer.weight.detach().double().abs()  # type: ignore[assignment, operator, union-attr]
    small = gain <= 1e-3 * gain.median()
    if getattr(layer, "running_var", None) is not None:
        spread = _inputs(finding.layer, model, batches).std(1) * gain
        spread = spread / (layer.running_var.double() + layer.eps).sqrt()  # type: ignore[operator, union-attr]
        small |= spread <= 1e-3 * spread.median()
    return bool(small.any())


_CLAIMS: Mapping[int, Claim] = {
    1: _mean_is_off,
    2: _variance_is_off,
    10: _variance_is_small,
    16: _bias_is_idle,
    19: _channels_are_dead,
}
