"""Running statistics against the data: what is found, in how many samples, and however cut."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import anynorm
from anynorm.doctor import doctor

SHAPES = {
    "Gaussian": lambda *size: torch.randn(*size),
    "log-normal": lambda *size: torch.randn(*size).exp(),
    "t3": lambda *size: torch.randn(*size) / torch.randn(3, *size).square().mean(0).sqrt(),
    "sparse": lambda *size: torch.randn(*size).abs() * (torch.rand(*size) < 0.05),
}


def net(shape="Gaussian", channels=32, seed=0):
    """A batch norm after training on batches of 64, and samples of the same kind."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(channels)
    for _ in range(200):
        norm(SHAPES[shape](64, channels))
    return nn.Sequential(norm).eval()


def found(model, x, *sizes, checks=(1, 2)):
    return doctor(model, list(x.split(list(sizes) or len(x))), checks=list(checks))


def said(diagnosis):
    return [(f.check, f.layer, f.severity, f.message) for f in diagnosis.findings]


@st.composite
def cuts(draw, samples=64):
    ends = draw(st.sets(st.integers(1, samples - 1), max_size=10))
    ends = [0, *sorted(ends), samples]
    return [b - a for a, b in itertools.pairwise(ends)]


@settings(max_examples=15, deadline=None)
@given(cuts())
def test_the_same_samples_are_found_wrong_however_they_are_cut(sizes):
    model = net()
    with torch.no_grad():
        model[0].running_mean += 0.5
        model[0].running_var[:8] *= 3
    torch.manual_seed(1)
    x = torch.randn(64, 32)
    whole = said(found(model, x))
    assert {check for check, *_ in whole} == {1, 2}
    assert said(found(model, x, *sizes)) == whole


@pytest.mark.parametrize("batches", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("fault", "check"), [("mean", 1), ("variance", 2), ("", 0)])
def test_a_few_large_batches_tell(batches, fault, check):
    model = net()
    with torch.no_grad():
        if fault == "mean":
            model[0].running_mean += 0.5
        if fault == "variance":
            model[0].running_var *= 2
    torch.manual_seed(2)
    diagnosis = found(model, torch.randn(64 * batches, 32), *[64] * batches)
    assert {f.check for f in diagnosis.findings} == ({check} if fault else set())
    assert not fault or diagnosis.undecided == ()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sizes", [(8,), (32, 32), (8,) * 40])
def test_heavy_tails_and_sparse_channels_are_no_fault(shape, sizes):
    for seed in range(10):
        model = net(shape, seed=seed)
        assert found(model, SHAPES[shape](sum(sizes), 32), *sizes).findings == ()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_is_found_whatever_the_tails(shape):
    model = net(shape)
    with torch.no_grad():
        model[0].running_mean += 0.5 * model[0].running_var.sqrt()
    assert 1 in {f.check for f in found(model, SHAPES[shape](64, 32), 32, 32).findings}


def test_data_that_cannot_tell_say_so_and_what_they_could_have_shown():
    model = net()
    few = found(model, torch.randn(16, 32), 8, 8)
    assert few.findings == ()
    assert [(one.check, one.name, one.layer) for one in few.undecided] == [
        (1, "running mean", "0"),
        (2, "running variance", "0"),
    ]
    assert few.undecided[0].message.startswith("16 samples in 2 batches: shifts below 0.")
    assert few.to_dict()["undecided"][0]["check"] == 1
    assert found(model, torch.randn(256, 32), 128, 128).undecided == ()
    [one, _] = found(model, torch.randn(2, 32)).undecided
    assert one.message == "2 samples in 1 batch: no shift can be distinguished from noise here"
    assert found(model, torch.randn(16, 32), checks=[3]).undecided == ()


def test_a_single_channel_is_found():
    model = net()
    with torch.no_grad():
        model[0].running_mean[3] += 1
        model[0].running_var[5] *= 5
    mean, variance = found(model, torch.randn(512, 32), *[64] * 8).findings
    assert (mean.severity, mean.numbers["channels, mean"]) == ("error", "1 of 32")
    assert (variance.severity, variance.numbers["worst channel, variance"]) == ("error", 5)


def test_samples_that_come_in_clusters_are_fewer_than_they_look():
    model = net()
    torch.manual_seed(4)
    alike = torch.randn(8, 32).repeat_interleave(16, dim=0)  # 8 different samples
    assert found(model, alike + 0.1 * torch.randn(128, 32)).findings == ()


@pytest.mark.parametrize("rows", ["together", "in turn"])
def test_rows_of_one_sample_count_once(rows):
    """(samples · time, channels) holds no more samples than the batch."""
    model = net()
    torch.manual_seed(5)
    x = torch.randn(12, 1, 32).expand(12, 40, 32)  # the same value at each time
    if rows == "in turn":
        x = x.transpose(0, 1)

    def forward(model, batch):
        return model(batch.reshape(-1, 32))

    axis = 1 if rows == "in turn" else 0
    diagnosis = doctor(model, [x], forward=forward, checks=[1, 2], batch_axis=axis)
    assert diagnosis.findings == ()
    assert "12 samples" in diagnosis.undecided[0].message


def test_a_channel_that_a_mask_leaves_out_is_no_fault():
    torch.manual_seed(7)
    norm = anynorm.BatchNorm1d(8)
    for _ in range(100):
        norm(torch.randn(64, 8, 5))
    mask = torch.ones(64, 8, 5, dtype=torch.bool)
    mask[:, 3] = False
    data = [torch.randn(64, 8, 5) for _ in range(2)]
    how = {"forward": lambda model, x: model(x, mask=mask), "checks": [1, 2]}
    assert doctor(norm.eval(), data, **how).findings == ()


class Detection(nn.Module):
    """The frozen batch norm of detection libraries."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = torch.ones if name in ("weight", "running_var") else torch.zeros
            self.register_buffer(name, value(channels))

    def forward(self, x):
        return (x - self.running_mean) / (self.running_var + 1e-5).sqrt()


@pytest.mark.parametrize("frozen", [anynorm.FrozenBatchNorm, Detection])
def test_frozen_statistics_are_examined(frozen):
    model = nn.Sequential(frozen(32)).eval()
    torch.manual_seed(6)
    x = torch.randn(64, 32)
    assert found(model, x).findings == ()
    shifted = found(model, x + 1)
    [one] = shifted.findings
    assert (one.check, one.severity) == (1, "warning")
    assert "frozen" in one.message
    # All inputs are off by one number, so the input is named and not the layer.
    [cause] = shifted.causes
    assert cause.name == "input preprocessing"
    assert [note.layer for note in shifted.fix().receipt.refused] == ["0"]
