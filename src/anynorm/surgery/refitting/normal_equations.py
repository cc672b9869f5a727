"""Linear least squares from values that arrive in batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from anynorm.errors import AnynormError
from anynorm.surgery.streaming_stats import double, summed

__all__ = ["Fit", "NormalEquations"]

# Ridges to choose from, beside the mean square of a feature.  With the last one the weights stay
# as they are, and only the constants are fitted.
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e6)
_COST_RIDGE = 1e-3
_EXACT = 1e-9  # of the variance: no error


@dataclass(frozen=True)
class Fit:
    """The solution of normal equations, for each group.

    `matrix` has the weights and, in its last column, the constants; `factor` is the Cholesky factor
    of the matrix of features; `error` is what is left of the variance of the targets on samples
    that were not used.
    """

    matrix: Tensor
    factor: Tensor
    error: float


class NormalEquations:
    """Sums over rows of features f and targets y: of f fᵀ, f yᵀ and y².

    Rows that are added go to two halves in turns, which check each other: a ridge that pulls the
    solution towards the old weights, (groups, outputs, features), is chosen by the error on the
    half that was not used.  With few rows this keeps the old weights.  Without a `constant` that is
    fitted, it is 0.

    >>> _ = torch.manual_seed(0)
    >>> features, weights = torch.randn(1, 100, 3).double(), torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> equations = NormalEquations(old=torch.zeros(1, 1, 3))
    >>> for rows in features.split(50, 1):
    ...     equations.add(rows, rows @ weights.double().mT + 5)
    >>> fit = equations.solve()
    >>> [round(one, 2) for one in fit.matrix.flatten().tolist()]
    [1.0, 2.0, 3.0, 5.0]
    """

    def __init__(self, old: Tensor, *, constant: bool = True) -> None:
        groups, outputs, features = old.shape
        start = double(old)
        self._constant, self._half = constant, 0
        self._start = torch.cat([start, start.new_zeros(groups, outputs, 1)], -1).mT

        def zeros(*shape: int) -> list[Tensor]:
            return [start.new_zeros(shape) for _ in range(2)]

        self._counts, self._power = zeros(), zeros(groups, outputs)
        self._gram = zeros(groups, features + 1, features + 1)
        self._cross = zeros(groups, features + 1, outputs)

    def add(self, features: Tensor, targets: Tensor, weight: float = 1.0) -> None:
        """Add rows, (groups, rows, features), and their targets, (groups, rows, outputs).

        Each stands for as many rows as its weight.
        """
        half, self._half = self._half, 1 - self._half
        last = features.new_full((*features.shape[:2], 1), float(self._constant))
        rows = torch.cat([features, last], -1)
        self._counts[half] += weight * rows.shape[1]
        self._gram[half] += weight * (rows.mT @ rows)
        self._cross[half] += weight * (rows.mT @ targets)
        self._power[half] += weight * targets.square().sum(1)

    def over_ranks(self, group: dist.ProcessGroup | None) -> None:
        """Take the sums of all processes of `group`."""
        for sums in (self._counts, self._gram, self._cross, self._power):
            for one in sums:
                one.copy_(summed(one, group))

    @property
    def empty(self) -> bool:
        """Whether there are no rows."""
        return not bool(self._counts[0] + self._counts[1])

    def solve(self) -> Fit:
        """The solution, by the ridge that suits.

        Raises `AnynormError` if there are less than two samples.
        """
        if not bool(self._counts[0] * self._counts[1]):
            raise AnynormError(
                "a refit needs at least two samples, of which one checks what the other gives. "
                "Give more batches, or batches of more than one sample."
            )
        if not all(bool(one.isfinite().all()) for one in (*self._gram, *self._cross)):
            raise AnynormError(
                "values in front of a layer are not finite, so it cannot be refitted. Look for NaN "
                "or infinite values in the batches and in the weights."
            )
        errors = [self._error(ridge) for ridge in _RIDGES]
        # The smallest ridge of those that do as well as the best one.
        best = next(at for at, error in enumerate(errors) if error <= 1.01 * min(errors) + _EXACT)
        both = self._gram[0] + self._gram[1], self._cross[0] + self._cross[1]
        matrix = _solved(*both, self._start, _RIDGES[best])
        factor = _factor(both[0], _COST_RIDGE)
        return Fit(matrix.mT, factor, errors[best])

    def _error(self, ridge: float) -> float:
        """The error of each half's solution on the other half, over the variance of the targets."""
        left = variance = 0.0
        for own, other in ((0, 1), (1, 0)):
            gram, cross, power = self._gram[other], self._cross[other], self._power[other]
            found = _solved(self._gram[own], self._cross[own], self._start, ridge)
            left += float((power + ((gram @ found - 2 * cross) * found).sum(1)).sum())
            constant = cross[:, -1] / self._counts[other]
            variance += float((power - self._counts[other] * constant.square()).sum())
        return left / variance if variance > 0 else 0.0


def _solved(gram: Tensor, cross: Tensor, start: Tensor, ridge: float) -> Tensor:
    """The solution, pulled to `start`."""
    wanted = cross + _pull(gram, ridge)[..., None] * start
    found: Tensor = torch.cholesky_solve(wanted, _factor(gram, ridge))
    return found


def _factor(gram: Tensor, ridge: float) -> Tensor:
    """The Cholesky factor with a ridge."""
    found: Tensor = torch.linalg.cholesky(gram + torch.diag_embed(_pull(gram, ridge)))
    return found


def _pull(gram: Tensor, ridge: float) -> Tensor:
    """What is added to the diagonal: nothing for the constant."""
    scale = gram.diagonal(dim1=-2, dim2=-1)[:, :-1].mean(-1, keepdim=True)
    # Features that are all zero leave the matrix singular without a ridge.
    pull = (ridge * scale).expand(-1, gram.shape[-1]).clone()
    pull[:, :-1].clamp_(min=torch.finfo(gram.dtype).tiny)
    pull[:, -1] = gram[:, -1, -1] == 0  # without a constant, it solves to 0
    return pull
