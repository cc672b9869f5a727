"""Pairs of calls and outputs in normal equations: all rows, or a part of many for all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anynorm.surgery.refitting.dense import DenseCall, as_matrix
from anynorm.surgery.refitting.normal_equations import NormalEquations
from anynorm.surgery.refitting.pairs import add_pairs, enough


def solved(weight: Tensor, pairs: list[tuple[DenseCall, Tensor]], most: float) -> Tensor:
    sums = NormalEquations(torch.zeros(1, len(weight), weight[0].numel()))
    add_pairs(sums, pairs, most=most)
    return sums.solve().matrix[..., :-1]


def drawn(noise: float) -> tuple[Tensor, list[tuple[DenseCall, Tensor]]]:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 3, 3)
    calls = [DenseCall(torch.conv2d, {"input": torch.randn(8, 3, 9, 9), "weight": weight})] * 5
    outputs = [call.run(weight, None) for call in calls]
    return weight, [
        (c, y + noise * torch.randn_like(y)) for c, y in zip(calls, outputs, strict=True)
    ]


@pytest.mark.parametrize("most", [math.inf, 60])
def test_a_part_of_the_rows_gives_the_same_weights_where_they_fit(most: float) -> None:
    weight, pairs = drawn(0.0)
    wanted = as_matrix(weight, 1, transposed=False)
    torch.testing.assert_close(solved(weight, pairs, most), wanted.double(), rtol=0, atol=0.02)


def test_a_part_of_the_rows_counts_as_all() -> None:
    _, pairs = drawn(0.5)
    every, part = (NormalEquations(torch.zeros(1, 4, 27)) for _ in range(2))
    add_pairs(every, pairs)
    add_pairs(part, pairs, most=100)
    one, other = (sums.solve().factor.square().sum() for sums in (every, part))
    assert one != other
    torch.testing.assert_close(other, one, rtol=0.05, atol=0)


def test_which_rows_is_the_same_in_each_run() -> None:
    weight, pairs = drawn(0.5)
    assert torch.equal(solved(weight, pairs, 100), solved(weight, pairs, 100))


def test_few_features_take_all_rows_and_many_some_for_each() -> None:
    assert enough(100, 1, 1) > 1e7
    assert enough(5000, 5, 2) == 5000
    assert enough(5000, None, 2) == math.inf
