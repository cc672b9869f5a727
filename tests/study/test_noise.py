import pytest
import torch

from anynorm.study.noise import DistributionNoise

STEPS, SAMPLES, UNITS = 200, 64, 8


@pytest.fixture(scope="module")
def draws():
    """m and s of many steps, each (steps, samples, units), read off two inputs."""
    noise = DistributionNoise(seed=3)
    shifts, scales = [], []
    for _ in range(STEPS):
        at = noise.calls.clone()
        shift = noise(torch.zeros(SAMPLES, UNITS))
        noise.calls.copy_(at)
        scales.append(noise(torch.ones(SAMPLES, UNITS)) - shift)
        shifts.append(shift)
    return torch.stack(shifts), torch.stack(scales)


def test_every_sample_is_shifted_by_at_most_a_tenth_around_its_units_mu(draws):
    shift, _ = draws
    assert shift.abs().max() <= 0.6
    spread = shift.amax(dim=1) - shift.amin(dim=1)
    assert (spread <= 0.2).all()
    assert spread.mean() > 0.18


def test_mu_is_uniform_from_minus_to_plus_one_half(draws):
    mu = draws[0].mean(dim=1).flatten()
    # 1,600 uniform draws: the standard error of the mean is 0.007, of the variance 0.0019.
    assert abs(mu.mean()) < 0.035
    assert abs(mu.var() - 1 / 12) < 0.01


def test_scale_is_normal_around_a_sigma_that_is_uniform_from_one_to_five_quarters(draws):
    scale = draws[1]
    assert abs(scale.std(dim=1).mean() - 0.1) < 0.002
    sigma = scale.mean(dim=1).flatten()
    assert abs(sigma.mean() - 1.125) < 0.015
    # The variance of sigma, and that of a mean over 64 samples of deviation 0.1.
    assert abs(sigma.var() - (0.25**2 / 12 + 0.1**2 / SAMPLES)) < 0.001


def test_all_positions_of_a_sample_and_unit_share_one_draw():
    y = DistributionNoise(seed=0)(torch.ones(4, 3, 5, 6))
    assert torch.equal(y, y[:, :, :1, :1].expand_as(y))
    assert len(y[:, :, 0, 0].unique()) == 12


def test_nothing_changes_in_eval_mode():
    x = torch.randn(4, 3)
    noise = DistributionNoise(seed=0).eval()
    assert torch.equal(noise(x), x)
    assert noise.calls == 0


def test_steps_differ_and_the_same_seed_repeats_them():
    x = torch.randn(4, 3)
    one, other = DistributionNoise(seed=5), DistributionNoise(seed=5)
    first, second = one(x), one(x)
    assert not torch.equal(first, second)
    assert torch.equal(other(x), first)
    assert torch.equal(other(x), second)


def test_neighbouring_seeds_do_not_repeat_each_others_steps():
    x = torch.zeros(2, 3)
    seen = [
        tuple(noise(x).flatten().tolist())
        for noise in map(DistributionNoise, range(4))
        for _ in range(50)
    ]
    assert len(set(seen)) == len(seen)


def test_a_state_dict_resumes_the_sequence():
    x = torch.randn(4, 3)
    noise, resumed = DistributionNoise(seed=1), DistributionNoise(seed=1)
    noise(x)
    resumed.load_state_dict(noise.state_dict())
    assert torch.equal(noise(x), resumed(x))


def test_the_global_random_state_is_neither_read_nor_moved():
    noise, x = DistributionNoise(seed=0), torch.ones(4, 3)
    before = torch.get_rng_state()
    first = noise(x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(DistributionNoise(seed=0)(x), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_gradient_pass_through(dtype):
    x = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    y = DistributionNoise(seed=0)(x)
    assert y.dtype is dtype
    (slope,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert ((slope > 0.4) & (slope < 1.9)).all()
