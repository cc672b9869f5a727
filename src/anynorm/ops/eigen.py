"""Eigenvalues and eigenvectors of symmetric matrices, by torch's core operators alone.

Neither these nor ONNX have an eigenvalue decomposition.  The Jacobi method needs matrix products
only: each round pairs all axes and rotates each pair by the angle that makes its off-diagonal entry
zero; the next round pairs them differently (Brent & Luk 1985).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["jacobi"]


def jacobi(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return what :func:`torch.linalg.eigh` does for matrices (G, C, C), computed in float64.

    The eigenvectors may differ from its in sign, and in their choice for a repeated eigenvalue.

    >>> values, axes = jacobi(torch.tensor([[[2.0, 1.0], [1.0, 2.0]]]))
    >>> values
    tensor([[1., 3.]])
    """
    size = matrix.shape[-1]
    even = size + size % 2  # one more axis of its own makes pairs of all
    turned = torch.nn.functional.pad(matrix.double(), (0, even - size, 0, even - size))
    places = torch.arange(even, device=matrix.device)
    same = (places[:, None] == places).double()
    axes = same.expand_as(turned).clone()
    partner = (places[:, None] == (places + 1 - 2 * (places % 2))).double()
    deal = (places[:, None] == torch.tensor(_dealt(even), device=matrix.device)).double()

    def once(number: Tensor, turned: Tensor, axes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        turn = _rotation(turned, same, partner) @ deal
        return number + 1, turn.mT @ turned @ turn, axes @ turn

    rounds = _sweeps(even) * (even - 1)
    number = torch.zeros((), dtype=torch.int64, device=matrix.device)
    _, turned, axes = torch.while_loop(
        lambda number, *_: number < rounds, once, (number, turned, axes)
    )
    values, order = (turned * same).sum(-1)[:, :size].sort(-1)
    axes = axes[:, :size, :size].gather(-1, order[:, None].expand(-1, size, -1))
    return values.to(matrix.dtype), axes.to(matrix.dtype)


def _rotation(matrix: Tensor, same: Tensor, partner: Tensor) -> Tensor:
    """The turns of all pairs (0, 1), (2, 3), … that make the entries between them zero."""
    diagonal = (matrix * same).sum(-1)
    # Rounding makes the two entries of a pair differ, and then the turn would be none.
    between = ((matrix + matrix.mT) * partner).sum(-1) / 2
    first = torch.triu(partner).sum(-1) * 2 - 1  # 1 for the first of a pair, −1 for the second
    away = first * (diagonal @ partner - diagonal)
    # tan of the smaller angle, written so that nothing is divided by zero
    magnitude = away.abs() + torch.sqrt(away * away + 4 * between * between)
    tangent = torch.where(away < 0, -2.0, 2.0) * between
    tangent = first * tangent / torch.where(magnitude > 0, magnitude, 1.0)
    cosine = torch.rsqrt(1 + tangent * tangent)
    return same * cosine[..., None] + partner * (tangent * cosine)[..., None]


def _dealt(count: int) -> list[int]:
    """The order of the axes in the next round: in ``count − 1`` rounds each meets every other."""
    first, second = list(range(0, count, 2)), list(range(1, count, 2))
    if count > 2:
        first, second = (
            [first[0], second[0], *first[1:-1]],
            [*second[1:], first[-1]],
        )
    return [axis for pair in zip(first, second, strict=True) for axis in pair]


def _sweeps(count: int) -> int:
    """How often each pair is turned: convergence is quadratic after a few sweeps."""
    return 10 + math.ceil(math.log2(count))
