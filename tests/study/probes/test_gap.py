import copy

import pytest
import torch
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.study.probes.gap import Pooled, recalibrate


def batches(*sizes, features=3):
    return [(torch.randn(n, features) * 3 + n, torch.zeros(n, dtype=torch.long)) for n in sizes]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm1d(3),
        lambda: nn.BatchNorm1d(3, momentum=None),
        lambda: anynorm.BatchNorm1d(3),
        lambda: anynorm.create("batch", 3),
    ],
)
def test_batch_statistics_are_those_of_all_values_pooled(make):
    norm, data = make(), batches(7, 20, 2)
    recalibrate(norm, data)
    everything = torch.cat([x for x, _ in data]).double()
    torch.testing.assert_close(norm.running_mean.double(), everything.mean(dim=0))
    torch.testing.assert_close(norm.running_var.double(), everything.var(dim=0))
    assert norm.num_batches_tracked == 3


def test_images_are_pooled_over_positions():
    norm, x = nn.BatchNorm2d(2), torch.randn(6, 2, 4, 4)
    recalibrate(norm, [(part, part) for part in x.split(4)])
    torch.testing.assert_close(norm.running_mean, x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, x.var(dim=(0, 2, 3)))


def test_other_statistics_are_averaged_by_the_size_of_the_batch():
    norm = nn.InstanceNorm1d(2, track_running_stats=True)
    # What was there before does not count, not even this.
    norm.running_mean.fill_(torch.nan)
    data = [(torch.randn(n, 2, 9), torch.zeros(n)) for n in (5, 3)]
    recalibrate(norm, data)
    everything = torch.cat([x for x, _ in data])
    torch.testing.assert_close(norm.running_mean, everything.mean(dim=2).mean(dim=0))
    torch.testing.assert_close(norm.running_var, everything.var(dim=2).mean(dim=0))
    assert norm.momentum == 0.1


@pytest.mark.parametrize("name", ["l1-batch", "linf-batch", "ghost", "zca", "pca"])
def test_every_statistic_shared_by_samples_is_recomputed(name):
    options = {"size": 16} if name == "ghost" else {}
    norm = anynorm.create(name, 4, **options)
    x = torch.randn(64, 4) * 3 + 5
    for _ in range(400):
        norm(x)
    settled = {key: value.clone() for key, value in norm.named_buffers() if "running" in key}
    norm.reset_running_stats()
    recalibrate(norm, [(x, x)])
    for key, value in settled.items():
        torch.testing.assert_close(norm.get_buffer(key), value, rtol=1e-4, atol=1e-4)


def test_deeper_layers_see_what_batch_statistics_produce():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.BatchNorm1d(4))
    x = torch.randn(40, 3)
    recalibrate(model, [(x, x)])
    standard = (x - x.mean(dim=0)) / (x.var(dim=0, correction=0) + model[0].eps).sqrt()
    hidden = model[1](standard)
    torch.testing.assert_close(model[2].running_mean, hidden.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_layer_called_twice_pools_its_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3, affine=False)

        def forward(self, x):
            self.norm(x)
            return self.norm(x + 10)

    model, x = Twice(), torch.randn(30, 3)
    recalibrate(model, [(x, x)])
    torch.testing.assert_close(model.norm.running_mean, x.mean(dim=0) + 5)


def test_modes_dropout_and_other_state_stay_while_poisoned_statistics_heal():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3))
    model[1].running_mean.fill_(torch.nan)
    modes = [module.training for module in model.modules()]
    weights = copy.deepcopy(list(model.parameters()))
    data, state = batches(64), torch.get_rng_state()
    assert recalibrate(model, data) is model
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), weights, strict=True)
    )
    assert model[1].running_mean.isfinite().all()
    assert not any(module._forward_pre_hooks for module in model.modules())
    # Dropout of 0.9 would have left a tenth of the values.
    assert (model[1].running_mean > 60).all()


def test_no_batches_is_an_error_and_changes_nothing():
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(5.0)
    with pytest.raises(AnynormError, match="at least one"):
        recalibrate(norm, [])
    assert norm.running_mean.tolist() == [5.0] * 3


def test_a_model_without_running_statistics_is_left_alone():
    model = nn.Sequential(
        nn.Linear(3, 3), nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False)
    )
    state = copy.deepcopy(model.state_dict())
    recalibrate(model, batches(4))
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def test_pooling_keeps_the_digits_that_a_sum_of_squares_loses():
    x = torch.randn(1000, 1, dtype=torch.float64) + 1e8
    pooled = Pooled()
    for part in x.split(7):
        pooled.merge(part)
    assert pooled.count == 1000
    torch.testing.assert_close(pooled.mean, x.mean(dim=0))
    torch.testing.assert_close(pooled.variance, x.var(dim=0), rtol=1e-6, atol=0)
