"""How far statistics moved from one pass over the batches to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from anynorm.surgery.streaming_stats import double

__all__ = ["moved", "over_sigma", "relative"]

# Two passes that see the same values may still differ by roundings.  Say ρ is the root mean square
# of a channel over its σ (large where the mean is many σ), and e the machine epsilon of the type
# that keeps the statistics.  Values near ρσ have errors of up to e/2 · ρσ.  These move the mean by
# that, and σ² by up to 2σ · e/2 · ρσ.  Then each of the two results is rounded, which moves the
# mean by up to e · ρσ and σ² by e.  So the mean may move by 3/2 · eρ σ, and log σ² by 2 eρ.  An
# error of eρ σ in front of a normalizer is one of eρ behind it, where values are about 1: so
# layers behind count with the largest ρ before them.  Twice that is for the arithmetic of the
# layers.
_ROUNDINGS = 4

_Statistics = tuple[Tensor, Tensor]


def moved(
    before: _Statistics, now: _Statistics, eps: float, epsilon: float, magnitude: float
) -> Tensor:
    """How far mean and variance moved in units of σ and log σ²; 0 if no further than roundings.

    Both are as they are kept, in float64; `epsilon` is the machine epsilon of the type they have.
    """
    (old_mean, old_var), (mean, var) = before, now
    by_mean = (mean - old_mean).abs() / (var + eps).sqrt()
    by_var = ((var + eps).log() - (old_var + eps).log()).abs()
    # A channel that is constant has σ = 0 and, if nothing moved, 0/0.
    by_mean = torch.where(mean == old_mean, 0.0, by_mean)
    by_var = torch.where((var == old_var) | (var.isnan() & old_var.isnan()), 0.0, by_var)
    found = torch.maximum(by_mean, by_var).nan_to_num(nan=torch.inf)
    own = over_sigma(mean, var, eps).nan_to_num(nan=1.0, posinf=1.0)
    return torch.where(found <= _ROUNDINGS * epsilon * own.clamp_min(magnitude), 0.0, found)


def over_sigma(mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """The root mean square of values over their σ."""
    return (1 + mean.square() / (var + eps)).sqrt()


def relative(old: Tensor, new: Tensor, magnitude: float) -> float:
    """How far a statistic moved beside its largest number; 0 if no further than roundings."""
    bound = _ROUNDINGS * torch.finfo(new.dtype).eps * magnitude
    old, new = double(old), double(new)
    found = float((new - old).abs().max() / new.abs().max().clamp_min(1e-30))
    return 0.0 if found <= bound else found
