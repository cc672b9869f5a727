"""Checks 4, 8 and 10 say what the modules show, and no more."""

import torch
from torch import nn

import anynorm
from anynorm.doctor import doctor


def test_an_unusual_epsilon_is_named_with_the_usual_one():
    norm = nn.BatchNorm2d(8, eps=0.1)
    norm.running_var.fill_(0.05)
    [found] = doctor(norm, checks=[10]).findings
    assert found.severity == "warning"
    assert "ε is 0.1 (by default 1e-05 in BatchNorm2d)" in found.message
    assert "42% smaller" in found.message
    norm.eps = 1e-3  # that of other libraries
    assert doctor(norm, checks=[10]).findings == ()


def test_an_epsilon_that_was_meant_is_named_where_it_scales_the_data():
    norm = anynorm.BatchNorm2d(8, eps=1e-3)
    norm.running_var.fill_(1e-4)
    [found] = doctor(norm, checks=[10]).findings
    assert found.message.startswith("ε is 0.001 (by default 1e-05 in BatchNorm2d), and the var")


def test_statistics_that_came_without_their_count_are_not_a_fresh_layers():
    norm = nn.BatchNorm1d(4)
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(0.01)
    assert doctor(norm, checks=[4]).findings == ()
    norm.num_batches_tracked += 5  # of a fresh layer, 0.59 would be left of a variance of 1
    assert doctor(norm, checks=[4]).findings == ()
    norm.running_var.fill_(0.8)
    [found] = doctor(norm, checks=[4]).findings
    assert found.message.startswith("after 5 batches a share of 0.59")


def test_statistics_that_are_not_tracked_do_not_move():
    norm = nn.BatchNorm1d(4).requires_grad_(False)
    assert [f.check for f in doctor(norm.train(), checks=[8]).findings] == [8]
    norm.track_running_stats = False
    assert doctor(norm.train(), checks=[8]).findings == ()
    [young] = doctor(norm, checks=[4]).findings
    assert "do not move in training" in young.message


class Recurrent(nn.Module):
    """Sequence first: time is axis 0, the samples are axis 1."""

    def __init__(self):
        super().__init__()
        self.cells, self.norm = nn.LSTM(4, 6), nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.cells(x)[0])


def test_the_axis_of_the_samples_is_found_or_given():
    torch.manual_seed(0)
    model, x = Recurrent(), torch.randn(7, 5, 4)
    assert doctor(model, [x], checks=[21]).findings == ()
    assert doctor(model, [x], checks=[21], batch_axis=1).facts["samples"] == 5
    assert [f.check for f in doctor(model, [x], checks=[21], batch_axis=0).findings] == [21]
    labelled = doctor(model, [(x, torch.zeros(5))], loss=lambda y, b: y.mean(), checks=[21])
    assert labelled.findings == ()
    assert labelled.facts["samples"] == 5


def test_a_momentum_of_zero_keeps_statistics_that_the_count_says_nothing_of():
    """Loaded, then frozen by momentum = 0: after five batches nothing is left of a fresh layer."""
    norm = nn.BatchNorm1d(4, momentum=0.0)
    norm.running_mean.fill_(1.0)
    norm.num_batches_tracked += 5
    assert doctor(norm, checks=[4]).findings == ()
    assert doctor(norm.train().requires_grad_(False), checks=[8]).findings == ()
    norm.running_mean.zero_()
    [young] = doctor(norm, checks=[4]).findings
    assert "they do not move in training (momentum=0.0)" in young.message


def test_layers_without_a_count_or_with_a_negative_one_are_examined():
    torch.manual_seed(0)
    x = torch.randn(64, 4) + 3
    for count in (None, torch.tensor(-5)):
        norm = nn.BatchNorm1d(4)
        norm.num_batches_tracked = count
        found = doctor(norm, [x], checks=[1, 4, 8, 12, 20])
        assert sorted(one.check for one in found.findings) == [1, 4]
        assert not found.not_examined
    norm.momentum = None
    assert doctor(norm, [x], checks=[1]).findings
