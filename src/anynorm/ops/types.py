"""Small records: γ with β, the steps after them, the statistic, and what backward needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from anynorm.activations import ACTIVATIONS

__all__ = ["AS_IT_IS", "PLAIN", "Affine", "Epilogue", "Saved", "Statistic", "View"]


class Statistic(NamedTuple):
    """Which μ and σ, over which axes of the input, as operators pass it on.

    `factor` is the constant C of :class:`anynorm.spec.Scale` for the number of values at hand.
    """

    dims: list[int]
    center: bool
    about_mean: bool
    p: float
    factor: float
    eps: float


class Affine(NamedTuple):
    """γ and β, each None where there is none."""

    weight: Tensor | None = None
    bias: Tensor | None = None


class Epilogue(NamedTuple):
    """What follows γ and β: a residual that is added, and φ by its name."""

    residual: Tensor | None = None
    phi: str = "identity"

    def apply(self, y: Tensor) -> Tensor:
        """Add the residual to `y` and apply φ, if the operator did not."""
        z = y if self.residual is None else y + self.residual
        return ACTIVATIONS[self.phi].forward(z)


# No residual and no φ.  It is compared by identity, because that is fast enough for small inputs.
PLAIN = Epilogue()


class View(NamedTuple):
    """The shapes in which operators see their tensors; None where those are what they have.

    `split` is that of the input (and the residual), `beside` that in which γ and β broadcast
    against it.
    """

    split: Sequence[int] | None = None
    beside: Sequence[int] | None = None

    def of(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return input and residual, any others, and last γ and β in these shapes."""
        x, residual, *others, weight, bias = tensors
        split, beside = self
        return [
            x if split is None or x is None else x.view(split),
            residual if split is None or residual is None else residual.view(split),
            *others,
            weight if beside is None or weight is None else weight.view(beside),
            bias if beside is None or bias is None else bias.view(beside),
        ]


AS_IT_IS = View()


class Saved(NamedTuple):
    """What backward takes beside dy, in the order of the operators' arguments.

    `sign_mask` has one bit for each value where φ's derivative follows from them, and is empty
    elsewhere; `residual` is there only where it does not.
    """

    x: Tensor
    residual: Tensor | None
    sign_mask: Tensor
    mean: Tensor
    square: Tensor
    weight: Tensor | None
    bias: Tensor | None
