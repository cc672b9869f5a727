"""The statistical tests keep their promises, against scipy-free references and by simulation."""

import pytest
import torch

from anynorm.doctor.significance import bootstrap, discoveries, p_values, welch


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


def test_welch_finds_a_difference_and_no_other():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 50, 1000, generator=generator, dtype=torch.float64)
    errors = (x.var(0) / 50, y.var(0) / 50)
    p = welch((x.mean(0), y.mean(0)), errors, (49, 49))
    assert (p < 0.05).double().mean().item() == pytest.approx(0.05, abs=0.025)
    assert (welch((x.mean(0) + 2, y.mean(0)), errors, (49, 49)) < 1e-6).all()


def test_bootstrap_covers_the_mean_and_is_the_same_each_time():
    values = torch.randn(40, generator=torch.Generator().manual_seed(3)).tolist()
    low, high = bootstrap(values, level=0.99)
    error = torch.tensor(values).std().item() / 40**0.5
    assert high - low == pytest.approx(2 * 2.576 * error, rel=0.1)
    assert (low, high) == bootstrap(values, level=0.99)
