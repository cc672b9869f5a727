"""The importance of channels, to compare it with |γ|."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from anynorm.study.probes.channels import Channels
from anynorm.study.probes.objective import Loss
from anynorm.surgery.snapshot import Snapshot, preserved

__all__ = ["DRAWS", "SHARES", "measure", "rank_correlation"]

# Shares of the channels that are made constant together, and the number of random choices.
SHARES = (0.1, 0.3, 0.5)
DRAWS = 20

Masks = list[Tensor]
LossOf = Callable[[Masks], float]


def measure(
    model: nn.Module, layers: Sequence[Channels], loss_fn: Loss, x: Tensor, y: Tensor
) -> dict[str, Any]:
    """Return how the loss on `x`, `y` rises when channels become constant.

    A constant channel outputs β: its normalized value is set to 0. The model is in train mode, so
    later layers use the statistics of the changed model. At the end the model is restored.

    ==================== ==========================================================
    loss                 the loss of the model as it is
    layers, channels     the layers' names, and how many channels each has
    gamma, rise          |γ| and the rise of the loss, of each layer's measured channels
    within               Spearman's correlation of the two in each layer
    across               the same over the channels of all layers
    shares               the shares of the channels made constant together
    by_layer, overall    the loss then: that share of each layer, or of all channels; with the
                         ``smallest`` and the ``largest`` |γ|, and with `DRAWS` ``random`` choices
    ==================== ==========================================================

    A correlation is nan if all values are equal.
    """
    with preserved(model), torch.no_grad():
        model.train()
        loss_of = _loss_with(layers, Snapshot(model), lambda: loss_fn(model(x), y).item())
        whole = loss_of([])
        # Copies, since every measurement below changes γ.
        every = [layer.gamma.abs() for layer in layers]
        gammas = [one[layer.chosen].tolist() for one, layer in zip(every, layers, strict=True)]
        rises = [_rises(layers, place, loss_of, whole) for place in range(len(layers))]
        together = _together(every, loss_of)
    return {
        "loss": whole,
        "layers": [layer.name for layer in layers],
        "kinds": [type(layer.layer).__name__ for layer in layers],
        "channels": [len(layer.gamma) for layer in layers],
        "gamma": gammas,
        "rise": rises,
        "within": [rank_correlation(*pair) for pair in zip(gammas, rises, strict=True)],
        "across": rank_correlation([*chain(*gammas)], [*chain(*rises)]),
        "shares": list(SHARES),
        **together,
    }


def _loss_with(layers: Sequence[Channels], snapshot: Snapshot, loss: Callable[[], float]) -> LossOf:
    def with_constant(masks: Masks) -> float:
        snapshot.restore()
        for layer, mask in zip(layers, masks, strict=bool(masks)):
            layer.gamma[mask] = 0.0
        return loss()

    return with_constant


def _rises(layers: Sequence[Channels], place: int, loss_of: LossOf, whole: float) -> list[float]:
    """Return the rise of the loss for each chosen channel of one layer, one at a time."""
    masks = [torch.zeros(len(layer.gamma), dtype=torch.bool) for layer in layers]
    rises = []
    for channel in layers[place].chosen:
        masks[place][channel] = True
        rises.append(loss_of(masks) - whole)
        masks[place][channel] = False
    return rises


def _together(gammas: Sequence[Tensor], loss_of: LossOf) -> dict[str, dict[str, list[Any]]]:
    """Return the loss with shares of the channels constant, chosen by layer and overall."""
    generator = torch.Generator().manual_seed(0)

    def random() -> Masks:
        return [torch.rand(len(gamma), generator=generator) for gamma in gammas]

    return {
        name: {
            "smallest": [loss_of(lowest(gammas, share)) for share in SHARES],
            "random": [
                [loss_of(lowest(random(), share)) for _ in range(DRAWS)] for share in SHARES
            ],
            "largest": [loss_of(lowest([-g for g in gammas], share)) for share in SHARES],
        }
        for name, lowest in (("by_layer", _lowest_by_layer), ("overall", _lowest_overall))
    }


def _lowest_by_layer(values: Sequence[Tensor], share: float) -> Masks:
    return [_lowest(value, share) for value in values]


def _lowest_overall(values: Sequence[Tensor], share: float) -> Masks:
    mask = _lowest(torch.cat(list(values)), share)
    return list(torch.split(mask, [len(value) for value in values]))


def _lowest(values: Tensor, share: float) -> Tensor:
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[values.argsort(stable=True)[: round(share * len(values))]] = True
    return mask


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's correlation; nan if all values of one side are equal.

    >>> rank_correlation([1.0, 2.0, 3.0], [1.0, 4.0, 9.0])
    1.0
    """
    if len(set(a)) < 2 or len(set(b)) < 2 or not np.isfinite([*a, *b]).all():
        return math.nan
    return float(stats.spearmanr(a, b).statistic)
