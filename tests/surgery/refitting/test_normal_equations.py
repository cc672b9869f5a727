"""Streamed least squares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anynorm.errors import AnynormError
from anynorm.surgery.refitting.normal_equations import Fit, NormalEquations


def solved(features: Tensor, targets: Tensor, old: Tensor) -> Fit:
    equations = NormalEquations(old)
    for rows, values in zip(features.split(7, 1), targets.split(7, 1), strict=True):
        equations.add(rows, values)
    return equations.solve()


def halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of each half, in the pieces of `solved`."""
    pieces = rows.split(7, 1)
    return torch.cat(pieces[::2], 1), torch.cat(pieces[1::2], 1)


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_with_many_rows_it_is_the_least_squares_solution() -> None:
    features = values(2, 4000, 5) + 3
    truth = values(2, 4, 5, seed=1)
    targets = features @ truth.mT + 2 + values(2, 4000, 4, seed=2)
    fit = solved(features, targets, torch.zeros(2, 4, 5))
    ones = torch.cat([features, torch.ones(2, 4000, 1).double()], -1)
    expected = torch.linalg.lstsq(ones, targets).solution.mT
    assert torch.allclose(fit.matrix, expected, rtol=0.01, atol=0.01)
    left = (targets - ones @ expected.mT).square().sum() / (
        targets - targets.mean(1, True)
    ).square().sum()
    assert fit.error == pytest.approx(float(left), rel=0.02)


def test_with_few_rows_the_old_weights_are_kept() -> None:
    old = values(1, 3, 200)
    features = values(1, 28, 200, seed=1)
    targets = features @ old.mT + values(1, 28, 3, seed=2)
    fit = solved(features, targets, old)
    assert torch.allclose(fit.matrix[..., :-1], old, atol=0.1)
    # The error of the old weights, with the constants of the other half.
    y, left = (halves(one) for one in (targets, targets - features @ old.mT))
    errors = [left[half] - left[1 - half].mean(1, True) for half in (0, 1)]
    variance = sum(one.var(1, correction=0).sum() * one.shape[1] for one in y)
    before = sum(one.square().sum() for one in errors) / variance
    assert fit.error == pytest.approx(float(before), rel=0.1)


def test_features_that_are_all_zero_do_no_harm() -> None:
    features = values(1, 100, 3)
    features[..., 1] = 0
    fit = solved(features, features.sum(-1, keepdim=True), torch.zeros(1, 1, 3))
    assert torch.allclose(fit.matrix, torch.tensor([[[1.0, 0.0, 1.0, 0.0]]]).double(), atol=1e-3)


def test_no_feature_but_zero_leaves_the_constant() -> None:
    fit = solved(
        torch.zeros(1, 100, 2).double(), torch.full((1, 100, 1), 5.0).double(), torch.zeros(1, 1, 2)
    )
    assert fit.matrix.flatten().tolist() == pytest.approx([0, 0, 5])


def test_one_sample_is_not_enough() -> None:
    equations = NormalEquations(torch.zeros(1, 1, 2))
    equations.add(values(1, 5, 2), values(1, 5, 1))
    with pytest.raises(AnynormError, match="at least two samples"):
        equations.solve()


def test_values_that_are_not_finite_are_an_error() -> None:
    features = values(1, 20, 2)
    features[0, 3, 1] = torch.nan
    with pytest.raises(AnynormError, match="not finite"):
        solved(features, values(1, 20, 1), torch.zeros(1, 1, 2))
