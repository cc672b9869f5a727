"""The statistical tests keep their promises, against tables, SciPy and by simulation."""

import pytest
import scipy.stats
import torch

from anynorm.doctor.significance import (
    discoveries,
    f_bound,
    f_tail,
    independent,
    mean_above_zero,
    p_values,
)


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [  # from tables of Student's t
        (3.182, 3, 0.05),
        (2.228, 10, 0.05),
        (3.169, 10, 0.01),
        (2.042, 30, 0.05),
        (1.960, 1e6, 0.05),
    ],
)
def test_p_is_students(t, freedom, p):
    found = p_values(torch.tensor([t], dtype=torch.float64), torch.ones(1).double(), freedom)
    assert found.item() == pytest.approx(p, rel=0.03)


def test_no_noise_makes_a_difference_certain_and_none_impossible():
    found = p_values(torch.tensor([0.0, 1e-9]), torch.zeros(2), 10)
    assert found.tolist() == [1.0, 0.0]


def test_false_discoveries_are_as_rare_as_promised():
    generator = torch.Generator().manual_seed(0)
    false = 0
    for _ in range(400):
        p = torch.rand(100, generator=generator)
        false += bool(discoveries(p, q=0.05).any())
    assert 0.02 < false / 400 < 0.09  # of nothing, 5% of the families have a discovery


def test_discoveries_are_those_of_the_paper():
    # Benjamini & Hochberg 1995, section 3.2: 15 p-values, q = 0.05, the first four.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p += [0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert discoveries(torch.tensor(p).double(), q=0.05).tolist() == [True] * 4 + [False] * 11


def test_missing_p_discover_nothing():
    assert discoveries(torch.tensor([torch.nan, 1e-9]), q=0.01).tolist() == [False, True]
    assert discoveries(torch.empty(0), q=0.01).shape == (0,)


@pytest.mark.parametrize("numerator", [2, 8, 60])
@pytest.mark.parametrize("denominator", [7, 15, 63, 127])
@pytest.mark.parametrize("p", [0.05, 2.5e-3, 2.5e-4])
def test_the_tail_of_f_is_scipys(numerator, denominator, p):
    value = scipy.stats.f.isf(p, numerator, denominator)
    assert p / 2 < f_tail(value, numerator, denominator) < 2 * p
    bound = f_bound(p, numerator, denominator)
    assert f_tail(bound, numerator, denominator) == pytest.approx(p, rel=1e-6)


def test_independent_channels_are_counted():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 40, generator=generator)
    # Chance correlation of 100 units is counted as correlation: 1 / (1 / 40 + 1 / 100).
    assert independent(x) == pytest.approx(28.6, rel=0.05)
    assert independent(x[:, :1].repeat(1, 40)) == pytest.approx(1)
    assert independent(torch.zeros(5, 3)) == 1


@pytest.mark.parametrize("samples", [3, 5, 40])
def test_a_mean_of_zero_is_rarely_called_larger(samples):
    generator = torch.Generator().manual_seed(0)
    found = [mean_above_zero(torch.randn(samples, generator=generator)) for _ in range(4000)]
    assert sum(p < 0.005 for p in found) / 4000 < 0.009
    assert mean_above_zero(torch.randn(samples, generator=generator) * 0.1 + 1) < 0.03
