import math

import numpy as np
import pytest
import torch
from torch import nn

from anynorm.study.probes.units import Distribution, Tracker


class Given(nn.Module):
    """Passes a matrix that the test sets, whatever the input."""

    def __init__(self, z):
        super().__init__()
        self.z = z

    def forward(self, x):
        return self.z


def tracker(z, activation):
    given = Given(z)
    return given, Tracker(nn.Sequential(given, activation), torch.zeros(1))


def test_percentiles_are_numpys():
    z = torch.randn(57, 3)
    _, track = tracker(z, nn.Tanh())
    expected = np.percentile(z[:, 0].double().numpy(), [15, 50, 85])
    assert track.measure()["percentiles"] == pytest.approx(list(expected), rel=1e-12)


def test_shift_and_scale_of_every_unit_are_measured_in_its_own_deviations():
    z = torch.randn(101, 5) * torch.tensor([1.0, 2.0, 3.0, 4.0, 50.0])
    given, track = tracker(z, nn.ReLU())
    first = track.measure()
    assert all(math.isnan(first[key][0]) for key in ("mean_shift", "wasserstein"))

    deviation = z.std(dim=0, correction=0)
    given.z = z + 0.25 * deviation
    moved = track.measure()
    assert moved["mean_shift"] == pytest.approx([0.25], rel=1e-5)
    assert moved["log_std_shift"] == pytest.approx([0.0], abs=1e-6)
    # Moving a distribution by c costs exactly c.
    assert moved["wasserstein"] == pytest.approx([0.25], rel=1e-5)

    given.z = given.z.mean(dim=0) + (given.z - given.z.mean(dim=0)) * 2
    widened = track.measure()
    assert widened["mean_shift"] == pytest.approx([0.0], abs=1e-5)
    assert widened["log_std_shift"] == pytest.approx([math.log(2)], rel=1e-5)
    standard = (z - z.mean(dim=0)) / deviation
    assert widened["wasserstein"] == pytest.approx(
        [standard.abs().mean(dim=0).median().item()], rel=1e-4
    )


def test_wasserstein_agrees_with_the_difference_of_distribution_functions():
    one, other = torch.randn(40).double(), torch.randn(40).double() * 3 + 1
    grid = torch.cat([one, other]).sort().values
    below = [(sample[:, None] <= grid).double().mean(dim=0) for sample in (one, other)]
    area = ((below[0] - below[1]).abs()[:-1] * grid.diff()).sum()
    shift = Distribution.of(one[None]).shift_to(Distribution.of(other[None]))
    assert shift[2] == pytest.approx((area / one.std(correction=0)).item())


@pytest.mark.parametrize(
    ("activation", "saturated"), [(nn.Sigmoid(), 0.25), (nn.Tanh(), 0.5), (nn.ReLU(), math.nan)]
)
def test_saturation_counts_beyond_four_and_two(activation, saturated):
    _, track = tracker(torch.tensor([[0.0, 3.0], [-4.5, 2.0]]), activation)
    assert track.measure()["saturated"] == pytest.approx([saturated], nan_ok=True)


def test_a_relu_unit_is_dead_when_no_sample_passes():
    z = torch.tensor([[-1.0, 2.0, 0.0, -3.0], [-2.0, -1.0, -1.0, 0.1]])
    assert tracker(z, nn.ReLU())[1].measure()["dead"] == [0.5]
    assert math.isnan(tracker(z, nn.Tanh())[1].measure()["dead"][0])


def test_one_passing_position_keeps_a_large_channel_alive():
    z = -torch.ones(64, 2, 8, 8)
    z[17, 1, 3, 3] = 1.0
    assert tracker(z, nn.ReLU())[1].measure()["dead"] == [0.5]


def test_whiteness_is_the_mean_absolute_correlation_of_pairs():
    z = torch.randn(50, 6) @ torch.randn(6, 6)
    correlation = np.abs(np.corrcoef(z.double().numpy().T))
    expected = (correlation.sum() - 6) / 30
    assert tracker(z, nn.Tanh())[1].measure()["whiteness"] == pytest.approx([expected])


def test_constant_units_have_no_correlation():
    z = torch.stack([torch.ones(4), torch.tensor([1.0, -1, 1, -1]), torch.tensor([1.0, 1, -1, -1])])
    assert tracker(z.T, nn.Tanh())[1].measure()["whiteness"] == pytest.approx([0.0], abs=1e-12)
    assert math.isnan(tracker(torch.ones(4, 2), nn.Tanh())[1].measure()["whiteness"][0])


def test_channels_are_the_units_of_images():
    images = torch.randn(3, 2, 4, 5)
    rows = images.permute(0, 2, 3, 1).reshape(-1, 2)
    same = [tracker(z, nn.ReLU())[1].measure() for z in (images, rows)]
    for key in ("dead", "whiteness", "percentiles"):
        assert same[0][key] == pytest.approx(same[1][key])


def test_a_large_layer_is_sampled_at_the_same_places_each_time():
    given, track = tracker(torch.randn(300, 2, 4, 4), nn.ReLU())
    track.measure()
    given.z = given.z + 1.0
    deviation = given.z.std(dim=(0, 2, 3)).mean().item()
    # Other places would differ by about 1/√2048 = 0.02 even without the shift.
    assert track.measure()["wasserstein"] == pytest.approx([1 / deviation], rel=0.06)
    given.z = given.z.clone()
    assert track.measure()["wasserstein"] == [0.0]


def test_without_activations_the_inputs_of_later_weight_layers_are_watched():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    track = Tracker(model, torch.randn(64, 3))
    assert track.layers == ["2"]
    p15, p50, p85 = track.measure()["percentiles"]
    # What the layer is given is batch-normalized.
    assert -1.5 < p15 < p50 < p85 < 1.5


def test_measuring_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU())
    track = Tracker(model, torch.randn(8, 3))
    state = torch.get_rng_state()
    first, second = track.measure(), track.measure()
    assert model[1].num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert second["wasserstein"] == [0.0]
    assert second["percentiles"] == first["percentiles"]


def test_behind_a_linear_layer_the_units_are_the_last_axis():
    linear = nn.Linear(3, 4)
    linear.bias.data[0] = -100.0
    x = torch.randn(8, 5, 3)
    assert Tracker(nn.Sequential(linear, nn.ReLU()), x).measure()["dead"] == [0.25]
    # Of the same values with units on axis 1, no unit is always dead.
    turned = nn.Sequential(linear, nn.Conv1d(5, 5, 1), nn.ReLU())
    nn.init.dirac_(turned[1].weight)
    nn.init.zeros_(turned[1].bias)
    assert Tracker(turned, x).measure()["dead"] == [0.0]
