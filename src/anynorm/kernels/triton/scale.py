"""The scales σ that kernels support."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Scale"]

_POWERS = {1.0: "absolute", 2.0: "square", math.inf: "largest"}


class Scale(NamedTuple):
    """The statistic of an operator, as arguments of kernels.

    `constant`: μ and σ are given, and do not depend on x.
    """

    center: bool
    about: bool
    power: str
    factor: float
    eps: float
    constant: bool = False

    @classmethod
    def of(
        cls,
        dims: Sequence[int],
        center: bool,
        about_mean: bool,
        p: float,
        factor: float,
        eps: float,
    ) -> Scale | None:
        """Return the scale; None if kernels do not support it.

        They do not support empty dims either, which mean all dims in the formula.
        """
        power = _POWERS.get(p)
        if power is None or not dims or (about_mean and not center):
            return None
        if center and not about_mean and power != "square":
            return None
        return cls(center, about_mean, power, factor, eps)

    @classmethod
    def given(cls, eps: float) -> Scale:
        """Return the scale for given statistics."""
        return cls(True, True, "square", 1.0, eps, True)
