"""Internal covariate shift in the optimisation sense."""

from __future__ import annotations

from collections.abc import Sequence

from anynorm.study.probes.layers import WeightLayer
from anynorm.study.probes.objective import Objective, cosine, norm

__all__ = ["KEYS", "measure", "spread"]

KEYS = ("distance", "relative", "cosine")


def measure(objective: Objective, layers: Sequence[WeightLayer]) -> dict[str, list[float]]:
    """Return how much each layer's gradient changes when the layers before it take their step.

    G_i is the gradient of layer i's parameters at step t. G'_i is the gradient on the same batch
    after all parameters before layer i were updated by the optimizer, including those of
    normalization layers. The result has ``distance`` ‖G_i − G'_i‖, ``relative``
    ‖G_i − G'_i‖ / ‖G_i‖ and ``cosine``, one number for each layer. For the model's first weight
    layer there is nothing before it, so the shift is zero.

    Paper: Santurkar et al. 2018, arXiv:1805.11604, Definition 2.1.
    """
    rows = [_compare(objective, layer) for layer in layers]
    return {key: [row[at] for row in rows] for at, key in enumerate(KEYS)}


def _compare(objective: Objective, layer: WeightLayer) -> tuple[float, float, float]:
    point = objective(objective.with_updated(layer.before))
    present = objective.part(objective.here.gradient, layer.parameters)
    ahead = objective.part(point.gradient, layer.parameters)
    distance = norm(present - ahead)
    relative = distance / norm(present)
    return distance.item(), relative.item(), cosine(present, ahead).item()


def spread(layers: Sequence[WeightLayer], most: int = 4) -> list[WeightLayer]:
    """Return at most `most` of the layers after the first, spread evenly over the depth.

    The first weight layer is left out, because its shift is zero by definition. The last layer is
    always included.
    """
    later = list(layers[1:])
    count = min(most, len(later))
    return [later[(i + 1) * len(later) // count - 1] for i in range(count)]
