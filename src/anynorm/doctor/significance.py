"""The statistical tests: is a difference more than noise, for one channel, for all, for a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["bootstrap", "discoveries", "p_values", "welch"]


def p_values(difference: Tensor, variance: Tensor, freedom: Tensor | float) -> Tensor:
    """Two-sided p of `difference`, whose noise has `variance` estimated with so much freedom.

    Student's t, by the normal approximation of Wallace (1959), which is good to 3% of p = 0.05
    with 3 degrees of freedom, and better with more.  No noise at all makes any difference certain.

    >>> p_values(torch.tensor([0.0, 2.0]), torch.ones(2), 1e6)
    tensor([1.0000, 0.0455])
    """
    t2 = torch.where(difference == 0, 0.0, difference.square() / variance)
    freedom = torch.as_tensor(freedom, dtype=t2.dtype)
    z = (8 * freedom + 1) / (8 * freedom + 3) * (freedom * torch.log1p(t2 / freedom)).sqrt()
    return torch.erfc(z / math.sqrt(2))


def discoveries(p: Tensor, q: float) -> Tensor:
    """Which of the tests with these p are significant at a false discovery rate of `q`.

    Benjamini & Hochberg 1995.

    >>> discoveries(torch.tensor([0.04, 0.001, 0.9]), q=0.01)
    tensor([False,  True, False])
    """
    ordered = p.nan_to_num(nan=1.0).sort().values
    bounds = q * torch.arange(1, len(p) + 1, dtype=p.dtype, device=p.device) / max(len(p), 1)
    passing = ordered[ordered <= bounds]
    return p <= passing.max() if len(passing) else torch.zeros_like(p, dtype=torch.bool)


def welch(
    means: tuple[Tensor, Tensor], errors: tuple[Tensor, Tensor], freedom: tuple[int, int]
) -> Tensor:
    """p of the difference of two means with squared standard `errors` (Welch 1947).

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> welch((zero, one), (0.01 * one, 0.01 * one), (50, 50)).item() < 1e-6
    True
    """
    total = errors[0] + errors[1]
    parts = errors[0].square() / freedom[0] + errors[1].square() / freedom[1]
    return p_values(means[0] - means[1], total, (total.square() / parts).nan_to_num(nan=1e9))


def bootstrap(
    differences: Sequence[float], level: float, draws: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """The two-sided confidence interval of a mean by the bootstrap (Efron 1979), seeded.

    >>> low, high = bootstrap([1.0, 1.1, 0.9, 1.0], level=0.99)
    >>> 0.9 <= low < 1 < high <= 1.1
    True
    """
    values = torch.tensor(differences, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(values), (draws, len(values)), generator=generator)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values[chosen].mean(dim=1).quantile(tails).tolist()
    return low, high
