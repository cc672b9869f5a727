"""The effect of γ and β: in train mode a unit's output has mean β and standard deviation |γ|."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.study.probes.channels import Channels
from anynorm.surgery.snapshot import preserved

__all__ = ["KEYS", "measure"]

KEYS = ("gamma", "beta", "mean", "deviation")


def measure(model: nn.Module, layers: Sequence[Channels], x: Tensor) -> dict[str, list[Any]]:
    """Return |γ|, β, and the mean and standard deviation of the output, for channels of `layers`.

    The model is called on `x` in train mode, and restored. If a layer is called several times, the
    last call counts. Each of `KEYS` has one list for each layer.
    """
    outputs = _outputs(model, layers, x)
    found: dict[str, list[Any]] = {"layers": [layer.name for layer in layers]}
    for key in KEYS:
        found[key] = []
    for layer in layers:
        z, chosen = outputs[layer.name][layer.chosen], layer.chosen
        values = (layer.gamma[chosen].abs(), layer.beta[chosen], z.mean(1), z.std(1, correction=0))
        for key, value in zip(KEYS, values, strict=True):
            found[key].append(value.tolist())
    return found


def _outputs(model: nn.Module, layers: Sequence[Channels], x: Tensor) -> dict[str, Tensor]:
    """Return each layer's output as (channels, values) in float64."""
    found: dict[str, Tensor] = {}
    # `preserved` removes the hooks at its end.
    with preserved(model), torch.no_grad():
        model.train()
        for layer in layers:
            layer.layer.register_forward_hook(
                lambda _module, _args, z, name=layer.name: found.update({name: z.clone()})
            )
        model(x)
    return {name: z.double().movedim(1, 0).flatten(1) for name, z in found.items()}
