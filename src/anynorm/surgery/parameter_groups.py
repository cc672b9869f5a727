"""Parameters with and without weight decay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery.model import check_model, need_shapes
from anynorm.surgery.normalizers import normalizers
from anynorm.surgery.recognize import is_vector, recognize

__all__ = ["parameter_groups"]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return a model's parameters for an optimizer: γ, β and biases have no weight decay.

    γ and β are found whatever the class of their layer is: those of torch.nn and anynorm, and of
    modules that :func:`anynorm.recognize` finds to normalize.  Other vectors and scalars are
    counted as biases.

    Args:
        model: the model.  Parameters that do not require a gradient are left out.
        weight_decay: that of all other parameters.

    Returns:
        A group with weight decay and one without, each if it has parameters; a single group for a
        weight decay of 0.  A tied parameter is there once.

    Raises:
        AnynormError: `model` is no module or has lazy parameters, or `weight_decay` is no number
            from 0 on.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm([8, 1]))
        >>> groups = parameter_groups(model, 0.1)
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
        [(1, 0.1), (3, 0.0)]
        >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)

    Reference:
        Loshchilov & Hutter 2019, arXiv:1711.05101 (decoupled weight decay).
    """
    check_model("parameter_groups", model)
    number = isinstance(weight_decay, (int, float)) and not isinstance(weight_decay, bool)
    if not (number and weight_decay >= 0):
        raise AnynormError(f"weight_decay={weight_decay!r}: give a number from 0 on.")
    need_shapes(model)
    without = {id(parameter) for parameter in _of_normalizers(model)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [p for p in parameters if p.dim() >= 2 and id(p) not in without]
    others = [p for p in parameters if p.dim() < 2 or id(p) in without]
    if not weight_decay:
        return [{"params": parameters, "weight_decay": 0.0}]
    groups = ((weights, weight_decay), (others, 0.0))
    return [{"params": chosen, "weight_decay": decay} for chosen, decay in groups if chosen]


def _of_normalizers(model: nn.Module) -> Iterator[Tensor]:
    known = {id(norm.module) for norm in normalizers(model)}
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        # If all have one axis, nothing depends on the answer.
        uncertain = any(parameter.dim() >= 2 for parameter in own)
        if id(module) in known or (uncertain and _normalizes(module, own)):
            yield from own


def _normalizes(module: nn.Module, own: Sequence[Tensor]) -> bool:
    """Whether the module normalizes inputs that have its channels on a usual axis."""
    if not all(map(is_vector, own)):
        return False
    channels = max(parameter.numel() for parameter in own)
    shapes = ((2, 5, channels), (2, channels, 4, 4), (2, channels, 5))
    return any(
        recognize(module, torch.empty(shape, dtype=own[0].dtype)).normalizes for shape in shapes
    )
