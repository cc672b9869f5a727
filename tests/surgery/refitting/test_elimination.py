"""The costs of backward elimination, against solving again without the features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anynorm.surgery.refitting.elimination import elimination_costs


def left(features: Tensor, targets: Tensor, weights: Tensor, kept: list[int]) -> float:
    """The weighted squared error of the least-squares solution on some features."""
    total = 0.0
    for rows, wanted, factor in zip(features, targets, weights, strict=True):
        found = torch.linalg.lstsq(rows[:, kept], wanted).solution
        total += float(((wanted - rows[:, kept] @ found).square().sum(0) * factor).sum())
    return total


@pytest.mark.parametrize("groups", [1, 2])
def test_the_costs_are_what_the_error_grows_by(groups: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    features = values(groups, 60, 9) @ values(9, 9)
    targets, weights = values(groups, 60, 4), values(groups, 4).square()
    inverse = torch.linalg.inv(features.mT @ features)
    matrix = (inverse @ features.mT @ targets).mT
    blocks = {10: [0, 1], 11: [2, 3], 12: [4], 13: [5, 6, 7]}  # the last feature is none's
    costs = elimination_costs(inverse, matrix, weights, blocks)
    assert set(costs) == set(blocks)
    kept, before, highest = list(range(9)), left(features, targets, weights, list(range(9))), 0.0
    for block in costs:  # in the order in which they went
        after = {
            one: left(features, targets, weights, [at for at in kept if at not in blocks[one]])
            for one in blocks
            if blocks[one][0] in kept
        }
        assert min(after, key=after.__getitem__) == block
        highest = max(highest, after[block] - before)
        assert costs[block] == pytest.approx(highest, rel=1e-6)
        kept, before = [at for at in kept if at not in blocks[block]], after[block]


def test_the_arguments_are_not_changed() -> None:
    inverse, matrix = torch.eye(3)[None], torch.ones(1, 1, 3)
    elimination_costs(inverse, matrix, torch.ones(1, 1), {1: [0], 2: [1]})
    assert inverse.equal(torch.eye(3)[None])
    assert matrix.equal(torch.ones(1, 1, 3))
