"""How large the gradient is beside the weights, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anynorm.study.probes.layers import WeightLayer
from anynorm.study.probes.objective import Objective, norm

__all__ = ["KEYS", "measure"]

KEYS = ("ratio", "max_over_min", "log_slope")


def measure(objective: Objective, layers: Sequence[WeightLayer]) -> dict[str, list[float] | float]:
    """Return the gradient flow over depth.

    ``ratio`` is ρ_l = ‖∇W_l‖ / ‖W_l‖ of each layer, biases left out; ``max_over_min`` the largest
    ρ over the smallest; ``log_slope`` the least-squares slope of log10 ρ_l on the layer's index,
    in decades per layer (negative where gradients fade towards the output). Under a
    reparametrization such as weight norm, W_l stands for the parameters that are trained.
    """
    rho = torch.stack([_ratio(objective, layer) for layer in layers])
    ratio: list[float] = rho.tolist()
    extremes = (rho.max() / rho.min()).item()
    return {"ratio": ratio, "max_over_min": extremes, "log_slope": _slope(rho.log10())}


def _ratio(objective: Objective, layer: WeightLayer) -> Tensor:
    gradient = objective.part(objective.here.gradient, layer.weights)
    return norm(gradient) / norm(objective.part(objective.start, layer.weights))


def _slope(values: Tensor) -> float:
    """Return the least-squares slope of `values` on 0, 1, 2, ...; nan for a single value."""
    index = torch.arange(len(values), dtype=values.dtype)
    centred = index - index.mean()
    return ((centred @ values) / (centred @ centred)).item()
