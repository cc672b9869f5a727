"""How far running statistics are from those of another model, or of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["furthest", "off"]


def furthest(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of a statistic, beside the largest number of its layer."""
    found = (
        [b.double() for name, b in model.named_buffers() if "running" in name]
        for model in (one, other)
    )
    pairs = zip(*found, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@torch.no_grad()
def off(model: nn.Module, data: list[Tensor]) -> float:
    """How far a layer's statistics are from those of what reaches it in eval mode, in σ."""
    seen: dict[nn.Module, list[Tensor]] = {}

    def see(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.setdefault(layer, []).append(args[0].double().movedim(1, -1).flatten(0, -2))

    layers = [m for m in model.eval().modules() if isinstance(m, nn.BatchNorm1d)]
    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    for x in data:
        model(x)
    for hook in hooks:
        hook.remove()
    worst = 0.0
    for layer in layers:
        x, var = torch.cat(seen[layer]), layer.running_var.double()
        by_mean = (x.mean(0) - layer.running_mean).abs() / x.std(0)
        worst = max(worst, float(by_mean.max()), float((x.var(0) / var).log().abs().max()))
    return worst
