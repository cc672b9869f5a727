"""The size of the gradient relative to the weights, layer by layer."""

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

    ``ratio`` is ρ_l = ‖∇W_l‖ / ‖W_l‖ of each layer, without biases; ``max_over_min`` is the ratio
    of the largest to the smallest ρ; ``log_slope`` is the least-squares slope of log10 ρ_l over the
    layer's index, in decades per layer (negative if ρ falls towards the output). With a
    parametrization such as weight norm, W_l are the parameters that are trained.
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
