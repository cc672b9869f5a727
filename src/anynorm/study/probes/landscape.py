"""How the loss and its gradient change along one step: loss range, predictiveness, smoothness."""

from __future__ import annotations

import torch
from torch import Tensor

from anynorm.study.probes.objective import Objective, cosine, norm

__all__ = ["KEYS", "MULTIPLIERS", "measure"]

MULTIPLIERS = (0.5, 1.0, 2.0, 3.0, 4.0)

KEYS = (
    "loss_low",
    "loss_high",
    "loss_range",
    "log_ratio",
    "distance_low",
    "distance_high",
    "relative_distance",
    "cosine",
    "beta",
    "eta_beta",
)


def measure(objective: Objective) -> dict[str, float]:
    """Walk θ_a = θ + a·d for a in `MULTIPLIERS`, with d = −η·g, and describe what is met.

    ==================== ==========================================================
    loss                 L(θ)
    loss_low, loss_high  min and max over a of L(θ_a)
    loss_range           loss_high − loss_low
    log_ratio            ln(loss_high / L(θ))
    distance_low, _high  min and max over a of D_a = ‖∇L(θ_a) − g‖
    relative_distance    max over a of D_a / ‖g‖
    cosine               min over a of the cosine between ∇L(θ_a) and g
    beta                 max over a of D_a / (a·‖d‖), the effective smoothness β
    eta_beta             η·β = max over a of D_a / (a·‖g‖)
    ==================== ==========================================================

    When the optimizer's own update is not −η·g, the same again with d that update, under keys
    that begin with ``update_``; there η stands for ‖d‖ / ‖g‖. A loss that overflows on the way
    gives ``inf`` or ``nan``.

    Paper: Santurkar et al. 2018, arXiv:1805.11604, section 3 and figure 4.
    """
    found = {"loss": objective.here.loss, **_along(objective, objective.descent)}
    if not objective.plain_descent:
        own = _along(objective, objective.after_update - objective.start)
        found |= {f"update_{key}": value for key, value in own.items()}
    return found


def _along(objective: Objective, direction: Tensor) -> dict[str, float]:
    here = objective.here
    points = [objective(objective.start + a * direction) for a in MULTIPLIERS]
    losses = torch.tensor([point.loss for point in points], dtype=torch.float64)
    gradients = torch.stack([point.gradient for point in points])
    distances, cosines = norm(gradients - here.gradient), cosine(gradients, here.gradient)
    slopes = distances / torch.tensor(MULTIPLIERS, dtype=torch.float64)
    length, slope = norm(here.gradient), slopes.max()
    values = (
        losses.min(),
        losses.max(),
        losses.max() - losses.min(),
        (losses.max() / here.loss).log(),
        distances.min(),
        distances.max(),
        distances.max() / length,
        cosines.min(),
        slope / norm(direction),
        slope / length,
    )
    return {key: value.item() for key, value in zip(KEYS, values, strict=True)}
