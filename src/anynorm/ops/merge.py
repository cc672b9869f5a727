"""Mean and squared deviations of several parts, from those of each part."""

from __future__ import annotations

from torch import Tensor

__all__ = ["merge"]


def merge(counts: Tensor, means: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the count, the mean and the sum of squared deviations of the union of all parts.

    The parts lie along the first axis.  Their deviations are taken from their own means, so that no
    digits are lost where the means are large.  Shares of the parts may stand for counts.

    Example:
        >>> import torch
        >>> parts = (torch.tensor([1.0, 3.0]), torch.tensor([1.0, 5.0]), torch.tensor([0.0, 2.0]))
        >>> merge(*parts)
        (tensor(4.), tensor(4.), tensor(14.))

    Reference:
        Chan, Golub & LeVeque 1983, of several parts at once.
    """
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total.clamp(min=1)
    return total, mean, (squares + counts * (means - mean).square()).sum(0)
