"""The statistical tests: is a difference more than noise, for one channel, for all, for a loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "discoveries",
    "f_bound",
    "f_tail",
    "independent",
    "mean_above_zero",
    "p_values",
]


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


def f_tail(value: float, numerator: float, denominator: float) -> float:
    """p of a value of F with these degrees of freedom.

    The cube root of F is nearly normal (Paulson 1942): good to a factor of 2 at p = 0.0001 with
    8 degrees of freedom or more.

    Example:
        >>> round(f_tail(3.0, 4, 60), 3), round(f_tail(1.0, 1e6, 1e6), 3)
        (0.025, 0.5)
    """
    root = max(value, 0.0) ** (1 / 3)
    a, b = 2 / (9 * numerator), 2 / (9 * denominator)
    z = ((1 - b) * root - (1 - a)) / math.sqrt(b * root**2 + a)
    return 0.5 * math.erfc(z / math.sqrt(2))


def f_bound(p: float, numerator: float, denominator: float) -> float:
    """The value that F exceeds with this p; infinite where the approximation has none.

    Example:
        >>> round(f_tail(f_bound(0.01, 8, 60), 8, 60), 6)
        0.01
    """
    low, high = 1.0, 1e6
    if f_tail(high, numerator, denominator) > p:
        return math.inf
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if f_tail(middle, numerator, denominator) > p else (low, middle)
    return high


def independent(influence: Tensor) -> float:
    """How many independent channels vary as all of these do together (Satterthwaite 1946).

    `influence` is of shape (units, channels).  The estimate is below the number of units and on
    the safe side: correlation that is chance counts, too.

    Example:
        >>> one = torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
        >>> round(independent(one.repeat(1, 5)), 3)
        1.0
    """
    size = influence.square().sum(dim=0).sqrt()
    unit = influence[:, size > 0] / size[size > 0]
    channels = unit.shape[1]
    if not channels:
        return 1.0
    return channels**2 / float((unit @ unit.T).square().sum())


def mean_above_zero(values: Tensor) -> float:
    """One-sided p that the mean of independent values is not above 0, by Student's t.

    Rare large negative values, which few samples have, make a mean look too large. Hall's
    transformation for skewness (1992) is used where it makes p larger. With 32 values and more,
    which show their tails, there are as many degrees of freedom as values carry the variance.

    Example:
        >>> mean_above_zero(torch.tensor([1.0, 1.1, 0.9, 1.0])) < 1e-3
        True
    """
    values = values.double()
    count, mean, variance = len(values), values.mean(), values.var().clamp(min=1e-300)
    away, ratio = values - mean, mean / variance.sqrt()
    skew = away.pow(3).mean() / variance.pow(1.5)
    hall = ratio + skew * ratio**2 / 3 + skew**2 * ratio**3 / 27 + skew / (6 * count)
    t = torch.minimum(ratio, hall) if skew < 0 else ratio
    carried = float(away.pow(4).sum() / away.square().sum().square().clamp(min=1e-300))
    tailed = skew < 0 and carried > 0 and count >= 32
    freedom = min(count - 1, 1 / carried) if tailed else count - 1
    p = float(p_values(t, torch.ones_like(t) / count, freedom)) / 2
    return p if t > 0 else 1 - p
