"""Statistics of the values that count, against those of the values picked out."""

import pytest
import torch

from anynorm.ops import Statistic, formula, merged_statistics

STATISTICS = {
    "std": Statistic([0, 2], True, True, 2.0, 1.0, 1e-5),
    "rms": Statistic([0, 2], False, False, 2.0, 1.0, 1e-5),
    "l1": Statistic([0, 2], True, True, 1.0, 1.0, 1e-5),
    "l3": Statistic([0, 2], True, False, 3.0, 1.0, 1e-5),
    "linf": Statistic([0, 2], True, True, float("inf"), 1.0, 1e-5),
}
SHAPE = (5, 3, 7)
MASKS = {
    "(N, C, L)": torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.5,
    "(N, 1, L)": torch.rand(5, 1, 7, generator=torch.Generator().manual_seed(1)) < 0.5,
    "(1, 1, L)": (torch.arange(7) < 3)[None, None],
    "(1, C, 1)": torch.tensor([True, False, True])[None, :, None],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("far", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", STATISTICS)
def test_moments_of_the_values_picked_out(name, dtype, far, mask):
    statistic, mask = STATISTICS[name], MASKS[mask]
    made = torch.Generator().manual_seed(2)
    x = (torch.randn(SHAPE, generator=made, dtype=torch.float64) * 3 + far).to(dtype)
    found = merged_statistics.pool(torch.where(mask, x, 0), statistic, mask=mask)
    # Deviations are of the type of the values, and relative to the largest of them.
    loose = 8 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for channel in range(3):
        values = x[:, channel][mask.expand(SHAPE)[:, channel]].double()
        number, mean, square = (t[0, channel, 0].item() for t in found)
        assert number == len(values)
        if not number:
            assert (mean, square) == (0, 0)
            continue
        one = statistic._replace(dims=[0], center=True)
        expected = [t.item() for t in formula.moments(values, one)]
        # a mean in two parts is known to its type's rounding of what is left of the first
        assert mean == pytest.approx(expected[0], rel=loose, abs=loose)
        assert square == pytest.approx(expected[1], rel=2e3 * loose if far else 4 * loose)


def test_numbers_have_the_shape_of_the_statistics():
    for mask in MASKS.values():
        number = merged_statistics.counted(mask, SHAPE, [0, 2])
        assert number.shape == (1, 3, 1)
        assert torch.equal(number, mask.expand(SHAPE).sum((0, 2), keepdim=True))


def test_covariances_of_the_vectors_picked_out():
    made = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 9, generator=made, dtype=torch.float64) + 5
    mask = torch.rand(2, 1, 9, generator=made) < 0.6
    number, mean, spread = merged_statistics.covariance(torch.where(mask, x, 0), mask=mask)
    for group in range(2):
        picked = x[group][:, mask[group, 0]]
        assert number[group] == picked.shape[1]
        torch.testing.assert_close(mean[group], picked.mean(1, keepdim=True))
        torch.testing.assert_close(spread[group], picked.cov(correction=0))


@pytest.mark.parametrize("name", STATISTICS)
def test_a_process_alone_and_no_mask(name):
    x = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    number, mean, square = merged_statistics.pool(x, STATISTICS[name])
    assert number.item() == 35
    expected = formula.moments(x, STATISTICS[name]._replace(center=True))
    torch.testing.assert_close((mean, square), expected)
