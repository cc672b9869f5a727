"""Backward elimination: what each input of a layer costs if the others take over its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["elimination_costs"]

_STEPS = 256  # of a layer with more inputs, several go at a time


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
    by_size: dict[int, list[int]] = {}
    for block, features in blocks.items():
        by_size.setdefault(len(features), []).append(block)
    inverse, matrix = inverse.clone(), matrix.to(inverse)
    left = {
        tuple(those): torch.tensor([list(blocks[block]) for block in those], device=inverse.device)
        for those in by_size.values()
    }
    found: dict[int, float] = {}
    highest = 0.0
    while len(found) < len(blocks):
        costs: dict[int, float] = {}
        for those, places in left.items():
            values = _costs(inverse, matrix, weights, places).tolist()
            costs |= {b: v for b, v in zip(those, values, strict=True) if b not in found}
        for block in sorted(costs, key=lambda one: (costs[one], one))[: 1 + len(costs) // _STEPS]:
            found[block] = highest = max(highest, costs[block])
            matrix = _remove(inverse, matrix, list(blocks[block]))
    return found


def _costs(inverse: Tensor, matrix: Tensor, weights: Tensor, places: Tensor) -> Tensor:
    """The error that each block adds, for blocks of one size with features at `places`."""
    own = inverse[:, places[:, :, None], places[:, None, :]]
    read = matrix[:, :, places].transpose(1, 2)  # (groups, blocks, outputs, features)
    added = (torch.linalg.solve(own, read, left=False) * read).sum(-1)
    total: Tensor = (added * weights[:, None]).sum((0, 2))
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
