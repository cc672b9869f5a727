"""The loss of one fixed mini-batch as a function of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from anynorm.surgery.snapshot import Snapshot

__all__ = ["Loss", "Objective", "Point", "cosine", "norm"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Point:
    """Loss and gradient at one θ, the gradient flattened as θ is."""

    loss: float
    gradient: Tensor


class Objective:
    """L_B(θ) and its gradient on one mini-batch B, at any θ.

    θ is one flat vector: the parameters that require a gradient, one after another.
    Every evaluation starts from `snapshot`, so buffers and random numbers are the same at each θ
    and the loss is a function of θ alone. The caller restores the snapshot at the end.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        model: nn.Module,
        loss_fn: Loss,
        optimizer: Optimizer,
        x: Tensor,
        y: Tensor,
    ) -> None:
        self._snapshot, self._model, self._loss_fn = snapshot, model, loss_fn
        self._optimizer, self._x, self._y = optimizer, x, y
        rates = {p: float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        every = dict.fromkeys([*model.parameters(), *rates])
        self._parameters: list[Tensor] = [p for p in every if p.requires_grad]
        self._rates = [rates.get(p, 0.0) for p in self._parameters]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        ends = accumulate(self._sizes)
        pairs = zip(self._parameters, self._sizes, ends, strict=True)
        self._places = {parameter: slice(end - size, end) for parameter, size, end in pairs}
        self.start = _flat(self._parameters)

    def __call__(self, theta: Tensor) -> Point:
        """Return loss and gradient at `theta`."""
        self._snapshot.restore()
        with torch.no_grad():
            torch._foreach_copy_(self._parameters, self.split(theta))
            for parameter in self._parameters:
                parameter.grad = None
        with torch.enable_grad():
            loss = self._loss_fn(self._model(self._x), self._y)
            loss.backward()  # type: ignore[no-untyped-call]
        return Point(loss.item(), _flat([_gradient(p) for p in self._parameters]))

    @cached_property
    def here(self) -> Point:
        """Loss and gradient at the present θ."""
        return self(self.start)

    @cached_property
    def descent(self) -> Tensor:
        """−η·g at the present θ, with each parameter's own learning rate η."""
        slices = zip(self.split(self.here.gradient), self._rates, strict=True)
        return torch.cat([(-rate * gradient).flatten() for gradient, rate in slices])

    @cached_property
    def after_update(self) -> Tensor:
        """θ after the optimizer's own update from here, with its momentum and decay."""
        self._snapshot.restore()
        gradients = self.split(self.here.gradient.clone())
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        return _flat(self._parameters)

    @property
    def plain_descent(self) -> bool:
        """Whether the optimizer's update is −η·g and nothing else."""
        extras = ("momentum", "weight_decay", "maximize")
        groups = self._optimizer.param_groups
        return isinstance(self._optimizer, SGD) and not any(g[e] for g in groups for e in extras)

    def split(self, theta: Tensor) -> list[Tensor]:
        """Return views of a flat vector, one for each parameter and of its shape."""
        slices = torch.split(theta, self._sizes)
        pairs = zip(slices, self._parameters, strict=True)
        return [values.view_as(parameter) for values, parameter in pairs]

    def part(self, theta: Tensor, parameters: Iterable[Tensor]) -> Tensor:
        """Return the entries of a flat vector that belong to the given parameters."""
        chosen = set(parameters)
        return torch.cat(
            [theta[at] for parameter, at in self._places.items() if parameter in chosen]
        )

    def with_updated(self, parameters: Iterable[Tensor]) -> Tensor:
        """Return θ with the given parameters after the optimizer's update, the others before."""
        theta = self.start.clone()
        for parameter in parameters:
            if (at := self._places.get(parameter)) is not None:
                theta[at] = self.after_update[at]
        return theta


def norm(vectors: Tensor) -> Tensor:
    """Return the L2 norm over the last axis in float64, where squares of float32 do not overflow.

    The result is on the CPU.
    """
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64)
    return length.cpu()


def cosine(vectors: Tensor, other: Tensor) -> Tensor:
    """Return the cosines over the last axis with one vector; nan where one of them is zero."""
    # Each is scaled first: the product of two tiny gradients would underflow.
    return (_unit(vectors) @ _unit(other)).double().cpu()


def _unit(vectors: Tensor) -> Tensor:
    return vectors / norm(vectors).to(vectors).unsqueeze(-1)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
