"""Which standard error a difference gets, and that it has the right size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from anynorm.study.inference.errors import Errors
from anynorm.study.inference.sample import Sample


def samples(table: np.ndarray) -> list[Sample]:
    return [Sample(str(place), list(row)) for place, row in enumerate(table)]


def test_alike_spreads_are_pooled() -> None:
    table = np.array([[1.0, 2.0, 3.0], [2.0, 3.1, 4.2], [5.0, 6.2, 6.9]])[:, [0, 2, 1]]
    table[1] = table[1][[1, 0, 2]]
    found = Errors(samples(table)).difference(1, 0)
    assert found.method == "pooled"
    assert found.freedom == 6
    assert found.error**2 == pytest.approx(2 * table.var(axis=1, ddof=1).mean() / 3)


def test_a_large_spread_stays_with_its_sample() -> None:
    rng = np.random.default_rng(1)
    table = rng.standard_normal((5, 4))
    table[0] *= 20
    found = Errors(samples(table)).difference(1, 0)
    expected = stats.ttest_ind(table[1], table[0], equal_var=False)
    assert found.method == "separate"
    assert found.freedom == pytest.approx(expected.df)
    assert found.value / found.error == pytest.approx(expected.statistic)


def test_ten_seeds_keep_separate_spreads() -> None:
    table = np.random.default_rng(2).standard_normal((3, 10))
    assert Errors(samples(table)).difference(1, 0).method == "separate"


def test_an_effect_of_the_seeds_is_removed() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4, 5))
    noise /= noise.std(axis=1, keepdims=True)
    table = 10 * rng.standard_normal((1, 5)) + noise
    found = Errors(samples(table))
    assert found.blocks
    assert found.difference(1, 0).method == "pooled, seeds as blocks"
    assert found.difference(1, 0).error < 2
    assert not Errors([Sample("a", table[0], range(5)), Sample("b", table[1], range(1, 6))]).blocks


def test_two_samples_with_seeds_as_blocks_are_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    table = 10 * rng.standard_normal((1, 6)) + rng.standard_normal((2, 6))
    found = Errors(samples(table)).difference(1, 0)
    expected = stats.ttest_rel(table[1], table[0])
    assert found.value / found.error == pytest.approx(expected.statistic)
    assert found.freedom == 5


def test_held_out_items_add_their_own_variance() -> None:
    """Runs that agree on every seed but differ on some items: seeds alone would be too sure."""
    rng = np.random.default_rng(0)
    differs = rng.random(400)
    items = [np.tile(100.0 * (differs > share), (3, 1)) for share in (0.5, 0.45)]
    a, b = (Sample(name, i.mean(axis=1), items=i) for name, i in zip("ab", items, strict=True))
    found = Errors([a, b]).difference(1, 0)
    difference = (items[1] - items[0])[0]
    assert found.seeds == 0
    # One item more in each direction is assumed to differ.
    assumed = 2 * (100 / 400) ** 2
    assert found.error**2 == pytest.approx(difference.var(ddof=1) / 400 + assumed)
    assert found.freedom == pytest.approx(399)


def test_noise_of_the_seeds_is_not_counted_twice() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(50):
        items = [100.0 * (rng.random((5, 300)) < 0.9) for _ in range(2)]
        a, b = (Sample(n, i.mean(axis=1), items=i) for n, i in zip("ab", items, strict=True))
        found = Errors([a, b]).difference(1, 0)
        shares.append(found.items / found.seeds)
    assert np.median(shares) < 0.3


def test_items_count_although_the_numbers_of_seeds_differ() -> None:
    rng = np.random.default_rng(0)
    differs = rng.random(400)
    right = [100.0 * (differs > share) for share in (0.5, 0.45)]
    items = [np.tile(row, (seeds, 1)) for row, seeds in zip(right, (3, 5), strict=True)]
    a, b = (Sample(name, i.mean(axis=1), items=i) for name, i in zip("ab", items, strict=True))
    assert Errors([a, b]).difference(1, 0).items > 1


def test_ten_items_that_all_agree_say_little() -> None:
    items = np.full((3, 10), 100.0)
    a, b = (Sample(name, items.mean(axis=1), items=items) for name in "ab")
    assert Errors([a, b]).difference(1, 0).error > 10
