"""Internal covariate shift in the optimisation sense."""

from __future__ import annotations

from collections.abc import Sequence

from anynorm.study.probes.layers import WeightLayer
from anynorm.study.probes.objective import Objective, cosine, norm

__all__ = ["KEYS", "measure", "spread"]

KEYS = ("distance", "relative", "cosine")


def measure(objective: Objective, layers: Sequence[WeightLayer]) -> dict[str, list[float]]:
    """Return how much each layer's gradient changes when the layers before it take their step.

    With G_i the gradient of layer i's parameters at step t, and G'_i the same on the same batch
    with everything before layer i already updated (by the actual optimizer) and the rest not yet:
    ``distance`` ‖G_i − G'_i‖, ``relative`` ‖G_i − G'_i‖ / ‖G_i‖ and ``cosine``, one number for
    each layer. The parameters of normalization layers before layer i move too; for the model's
    first weight layer nothing does.

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
    """Return at most `most` of the layers that have others before them, evenly over the depth.

    The first weight layer is left out: by definition its shift is zero. The last is always in.
    """
    later = list(layers[1:])
    count = min(most, len(later))
    return [later[(i + 1) * len(later) // count - 1] for i in range(count)]
