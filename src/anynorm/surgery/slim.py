"""Training for pruning: a penalty that drives γ of unimportant channels to zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from anynorm.errors import AnynormError
from anynorm.surgery.gammas import SEARCH, scales_of
from anynorm.surgery.model import check_model
from anynorm.surgery.names import Layers

__all__ = ["Slim", "slim"]

_PENALTIES = ("l1", "polarization")


class Slim:
    """A penalty on the γ of a model's batch and instance norms.

    Use it as a term of the loss, or in its proximal form with any optimizer: see :func:`slim`.
    Polarization separates the γ into small and large ones.

    Args:
        model: the model.
        strength: λ, 0 or more.
        penalty: ``"l1"``, λ Σ|γ|, or ``"polarization"``, λ Σ (t |γ| − | |γ| − mean |γ| |).
        t: the weight of |γ| in polarization.
        layers: the layers to penalize (see :mod:`anynorm.surgery.names`); None for all.

    Raises:
        AnynormError: There is no such penalty, the strength is below 0, or the model has no such
            layer with a trainable γ.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        >>> Slim(model, 0.01).loss()
        tensor(0.0400, grad_fn=<MulBackward0>)

    Reference:
        Liu et al. 2017, arXiv:1708.06519 (L1); Zhuang et al. 2020, NeurIPS (polarization).
    """

    def __init__(
        self,
        model: nn.Module,
        strength: float,
        *,
        penalty: str = "l1",
        t: float = 1.2,
        layers: Layers | None = None,
    ) -> None:
        check_model("slim", model)
        if penalty not in _PENALTIES:
            raise AnynormError(f"penalty={penalty!r}; give one of {', '.join(_PENALTIES)}.")
        if not strength >= 0:
            raise AnynormError(f"strength={strength}; it must be 0 or more.")
        self.strength, self.penalty, self.t = strength, penalty, t
        self.scales: dict[str, nn.Parameter] = _scales(model, layers)
        if not self.scales:
            where = f" in layers {layers!r}" if layers else ""
            raise AnynormError(
                f"{type(model).__name__} has no batch or instance norm with a trainable γ{where}: "
                f"{SEARCH.failure(model)}."
            )

    def values(self) -> Tensor:
        """All |γ| in one row."""
        return torch.cat([scale.abs().flatten() for scale in self.scales.values()])

    def loss(self) -> Tensor:
        """The penalty, to be added to the loss."""
        values = self.values()
        if self.penalty == "l1":
            return self.strength * values.sum()
        return self.strength * (self.t * values - (values - values.mean()).abs()).sum()

    def step(self, lr: float) -> None:
        """Take the penalty's proximal step, after an optimizer's step with learning rate `lr`.

        For L1 this is soft thresholding, γ ← sign(γ) · max(|γ| − lr·λ, 0), which gives exact zeros;
        a subgradient would only oscillate around zero.  Polarization moves each |γ| by its
        subgradient and stops it at zero.
        """
        self._shrink({id(scale): lr for scale in self.scales.values()})

    def attach(self, optimizer: Optimizer) -> RemovableHandle:
        """Take the proximal step after each step of an optimizer.

        The step uses the learning rates of the optimizer's groups, times 1 / (1 − momentum), which
        is the effect of momentum on a term of the loss.

        Args:
            optimizer: the optimizer that trains the model.

        Returns:
            The handle; its `remove()` ends the steps.

        Raises:
            AnynormError: The optimizer trains none of these γ.
        """
        if not hasattr(optimizer, "param_groups"):
            raise AnynormError(
                f"optimizer is of type {type(optimizer).__name__}; it must be a "
                "torch.optim.Optimizer. Give the one that trains the model."
            )
        if not _rates(optimizer).keys() & {id(scale) for scale in self.scales.values()}:
            raise AnynormError("the optimizer trains none of the model's γ; add them to it.")
        return optimizer.register_step_post_hook(lambda *_: self._shrink(_rates(optimizer)))

    @torch.no_grad()
    def _shrink(self, rates: Mapping[int, float]) -> None:
        """Move each |γ| that has a learning rate against the slope of its penalty."""
        mean = self.values().mean()
        for scale in self.scales.values():
            size = scale.abs()
            slope = 1.0 if self.penalty == "l1" else self.t - (size - mean).sign()
            shrunk = (size - rates.get(id(scale), 0.0) * self.strength * slope).clamp_min(0)
            scale.copy_(torch.where(scale < 0, -shrunk, shrunk))


def _rates(optimizer: Optimizer) -> dict[int, float]:
    """How far a unit gradient moves each parameter in the long run, by the parameter's identity.

    Momentum m adds up to 1 / (1 − m) times the learning rate: so λ means the same as in the loss.
    """
    groups = optimizer.param_groups
    return {id(scale): _rate(group) for group in groups for scale in group["params"]}


def _rate(group: Mapping[str, Any]) -> float:
    damped = (1 - group.get("dampening", 0)) / (1 - group.get("momentum", 0))
    return float(group["lr"]) * (damped if group.get("momentum", 0) else 1.0)


def slim(
    model: nn.Module,
    optimizer: Optimizer,
    strength: float = 1e-2,
    *,
    penalty: str = "l1",
    t: float = 1.2,
    layers: Layers | None = None,
) -> RemovableHandle:
    """Penalize γ from now on: after each step of the optimizer comes the penalty's proximal step.

    It works with any optimizer, whose own step knows nothing of the penalty (an L1 term in an
    adaptive optimizer's gradient is scaled away).  Prune afterwards with ``anynorm.prune(model,
    example, gap=True, ...)``.  See :class:`Slim` for the penalties, and for their form as a term of
    the loss.

    Args:
        model: the model.
        optimizer: the optimizer that trains it.
        strength, penalty, t, layers: as for :class:`Slim`.

    Returns:
        The handle that ends it.

    Raises:
        AnynormError: As for :class:`Slim`, or the optimizer trains none of the model's γ.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> handle = slim(model, optimizer, strength=1.0)
        >>> model(torch.zeros(2, 3, 8, 8)).sum().backward()
        >>> optimizer.step()
        >>> model[1].weight.detach()
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    return Slim(model, strength, penalty=penalty, t=t, layers=layers).attach(optimizer)


def _scales(model: nn.Module, layers: Layers | None) -> dict[str, nn.Parameter]:
    found = scales_of(model, layers).items()
    return {name: g for name, g in found if isinstance(g, nn.Parameter) and g.requires_grad}
