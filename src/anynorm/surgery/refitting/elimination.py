"""Backward elimination: what each input of a layer costs if the others take over its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["elimination_costs"]

_STEPS = 64  # of a layer with more inputs, several go at a time


def elimination_costs(
    inverse: Tensor, matrix: Tensor, weights: Tensor, blocks: Mapping[int, Sequence[int]]
) -> dict[int, float]:
    """The error that removing each block of features adds, in the order that adds least.

    As in optimal brain surgeon (Hassibi and Stork 1992): if the block b of a least-squares solution
    W goes and all others are fitted anew, the squared error grows by W_b (P_bb)⁻¹ W_bᵀ, where P is
    the inverse of the matrix of features.  Blocks go one by one, and W and P follow.

    Args:
        inverse: P for each group, (groups, features, features).
        matrix: W, (groups, outputs, features).
        weights: the weight of each output in the error, (groups, outputs).
        blocks: the features of each block; a group without some of them has all of them.

    Returns:
        The error of each block, at least that of those before it.

    Example:
        >>> inverse, matrix = torch.eye(3)[None], torch.tensor([[[1.0, 3.0, 2.0]]])
        >>> elimination_costs(inverse, matrix, torch.ones(1, 1), {7: [0], 8: [1], 9: [2]})
        {7: 1.0, 9: 4.0, 8: 9.0}
    """
    inverse, matrix = inverse.clone(), matrix.to(inverse)
    left, found, highest = dict(blocks), dict[int, float](), 0.0
    while left:
        costs = _costs(inverse, matrix, weights, left)
        gone = sorted(costs, key=lambda one: (costs[one], one))[: 1 + len(costs) // _STEPS]
        for block in gone:
            found[block] = highest = max(highest, costs[block])
        matrix = _remove(inverse, matrix, [at for block in gone for at in left.pop(block)])
    return found


def _costs(
    inverse: Tensor, matrix: Tensor, weights: Tensor, blocks: Mapping[int, Sequence[int]]
) -> dict[int, float]:
    """The error that each block adds."""
    by_size: dict[int, list[int]] = {}
    for block, features in blocks.items():
        by_size.setdefault(len(features), []).append(block)
    found: dict[int, float] = {}
    for those in by_size.values():
        places = torch.tensor([list(blocks[block]) for block in those], device=inverse.device)
        found |= dict(zip(those, _of_one_size(inverse, matrix, weights, places), strict=True))
    return found


def _of_one_size(inverse: Tensor, matrix: Tensor, weights: Tensor, places: Tensor) -> list[float]:
    """The same for blocks with equally many features, which are at `places`."""
    own = inverse[:, places[:, :, None], places[:, None, :]]
    read = matrix[:, :, places].transpose(1, 2)  # (groups, blocks, outputs, features)
    single = own.shape[-1] == 1
    solved = read / own if single else torch.linalg.solve(own, read, left=False)
    added = (solved * read).sum(-1)
    total: list[float] = (added * weights[:, None]).sum((0, 2)).tolist()
    return total


def _remove(inverse: Tensor, matrix: Tensor, features: list[int]) -> Tensor:
    """Take features out of `inverse`, which is changed, and of the solution, which is returned."""
    share = torch.linalg.solve(inverse[:, features][:, :, features], inverse[:, features])
    matrix = matrix - matrix[:, :, features] @ share
    inverse -= inverse[:, :, features] @ share
    matrix[:, :, features] = 0
    inverse[:, features] = 0
    inverse[:, :, features] = 0
    inverse[:, features, features] = 1
    return matrix
