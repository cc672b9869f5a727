"""Units depend on the samples and their order alone, and tell how much means vary."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anynorm.surgery.sample_units import LIMIT, Units, samples, together


def values(number, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, channels, generator=generator, dtype=torch.float64) + 5


def in_parts(x, sizes):
    units, start = Units(), 0
    for part in x.split(sizes):
        units.add(start, *samples(part))
        start += len(part)
    return units


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=12))
def test_no_cut_changes_the_units(sizes):
    x = values(sum(sizes))
    cut, whole = in_parts(x, sizes), in_parts(x, [len(x)])
    assert cut.size == whole.size
    assert cut.samples == whole.samples == len(x)
    for one, other in zip(cut.influences(), whole.influences(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_influences_are_those_of_the_mean_and_the_variance():
    x = values(50)
    of_mean, of_variance = in_parts(x, [50]).influences()
    torch.testing.assert_close(of_mean, (x - x.mean(0)) / 50)
    away = (x - x.mean(0)).square()
    torch.testing.assert_close(of_variance, (away - away.mean(0)) / 50)
    error = of_mean.square().sum(0) * 50 / 49
    torch.testing.assert_close(error, x.var(0) / 50)


def test_many_samples_keep_few_units_that_know_the_noise():
    x = values(5000, channels=40)
    units = in_parts(x, [64] * 78 + [8])
    assert LIMIT / 2 < len(units.means) <= LIMIT
    error = units.influences()[0].square().sum(0)
    assert (error / (x.var(0) / 5000)).mean().item() == pytest.approx(1, abs=0.1)


def test_neighbours_that_are_alike_make_more_noise():
    alone = values(120, channels=20)
    assert Units.clustering(in_parts(alone, [120]).influences()[0]) == 1
    alike = alone[:15].repeat_interleave(8, dim=0)
    assert Units.clustering(in_parts(alike, [120]).influences()[0]) == pytest.approx(8, rel=0.3)


def test_one_side_may_have_seen_fewer_samples():
    found = together(torch.ones(8, 2), torch.ones(2, 2))
    assert found.tolist() == [[3, 3], [3, 3]]
    assert together(torch.ones(3, 1), torch.ones(2, 1)).flatten().tolist() == [0, 0, 1]
