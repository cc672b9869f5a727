"""Checks 11 and 17: calls of one layer, and dropout, compared sample by sample."""

import pytest
import torch
from torch import nn

from anynorm.doctor import doctor


class Shared(nn.Module):
    """One batch norm for each part of the input."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x):
        return torch.stack([self.norm(part) for part in x.unbind(1)])


def differing(x, *sizes):
    return doctor(Shared().eval(), list(x.split(list(sizes))), checks=[11]).findings


def test_many_pairs_of_calls_that_are_alike_are_one_family():
    torch.manual_seed(0)
    found = [bool(differing(torch.randn(64, 8, 16), 32, 32)) for _ in range(40)]
    assert sum(found) <= 2  # a quarter of them, were the 28 pairs not one family


@pytest.mark.parametrize("sizes", [(64,), (32, 32), (10, 20, 34)])
def test_calls_that_differ_are_found_however_the_samples_are_cut(sizes):
    torch.manual_seed(0)
    x = torch.randn(64, 4, 16)
    x[:, 2] += 0.5
    [found] = differing(x, *sizes)
    assert "3" in found.numbers["calls compared"]
    assert found.message == differing(x, 64)[0].message


@pytest.mark.parametrize(("rate", "least", "most"), [(0.1, 19, 20), (0.001, 0, 0)])
def test_a_little_dropout_in_front_of_batch_norm_is_found(rate, least, most):
    count = 0
    for seed in range(20):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(32, 64), nn.Dropout(rate), nn.Linear(64, 32), nn.BatchNorm1d(32)
        ).eval()
        count += bool(doctor(model, list(torch.randn(64, 32).split(16)), checks=[17]).findings)
    assert least <= count <= most
