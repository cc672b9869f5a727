"""Masks that a model passes to its layers, as measurements and changes of the layers see them."""

import pytest
import torch
from masks import lengths, poisoned
from torch import nn

import anynorm
from anynorm.doctor.probe import Probe
from anynorm.surgery import convert, fold, freeze, recalibrate
from anynorm.surgery.call_args import mask_of

N, C, L = 8, 3, 7
MAKE = {
    "BatchNorm1d": lambda: anynorm.BatchNorm1d(C, dtype=torch.float64),
    "batch": lambda: anynorm.create("batch", C, dtype=torch.float64),
    "zca": lambda: anynorm.create("zca", C, dtype=torch.float64),
    "l1-batch": lambda: anynorm.create("l1-batch", C, dtype=torch.float64),
}


class Padded(nn.Module):
    """Two layers on padded sequences, by place and by name; the padding is not a number."""

    def __init__(self, make=MAKE["BatchNorm1d"]):
        super().__init__()
        self.first, self.second = make(), make()

    def forward(self, x, mask):
        return self.second(self.first(x, None, mask), mask=mask)


def batch(seed=0):
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(N, C, L, generator=made, dtype=torch.float64) * 3 + 1
    mask = lengths(N, L, seed)
    return {"x": poisoned(x, mask[:, None]), "mask": mask}


def picked(given):
    """(M, C): the vectors that count."""
    return given["x"].movedim(1, -1)[given["mask"]]


@pytest.mark.parametrize("name", ["BatchNorm1d", "batch"])
def test_recalibration_pools_the_values_that_count(name):
    batches = [batch(seed) for seed in range(3)]
    model = recalibrate(Padded(MAKE[name]), batches).model
    rows = torch.cat([picked(given) for given in batches])
    torch.testing.assert_close(model.first.running_mean, rows.mean(0))
    torch.testing.assert_close(model.first.running_var, rows.var(0))
    second = model.first.eval()(rows)
    torch.testing.assert_close(model.second.running_mean, second.mean(0), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(model.second.running_var, second.var(0))


def test_recalibration_with_a_choice_for_each_channel():
    """One channel never has a value, and keeps its statistics."""
    given = batch()
    mask = torch.rand(N, C, L, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, 1] = False
    x = torch.randn(N, C, L, dtype=torch.float64)
    given = {"x": poisoned(x, mask), "mask": mask}
    layer = recalibrate(Padded(), [given]).model.first
    for channel in (0, 2):
        values = x[:, channel][mask[:, channel]]
        torch.testing.assert_close(layer.running_mean[channel], values.mean())
        torch.testing.assert_close(layer.running_var[channel], values.var())
    assert (layer.running_mean[1], layer.running_var[1]) == (0, 1)


@pytest.mark.parametrize(("name", "state"), [("l1-batch", "running_var"), ("zca", "running_cov")])
def test_other_statistics_are_averaged_by_what_counts(name, state):
    batches = [batch(seed) for seed in range(3)]
    layer = recalibrate(Padded(MAKE[name]), batches, passes=1).model.first
    weights = torch.stack([given["mask"].sum() for given in batches]).double()
    alone = []
    for given in batches:
        one = MAKE[name]()
        one.momentum = 1.0
        one(picked(given))
        alone.append(torch.cat([one.running_mean, getattr(one, state).flatten()]))
    found = torch.cat([layer.running_mean, getattr(layer, state).flatten()])
    torch.testing.assert_close(found, weights @ torch.stack(alone) / weights.sum())


def test_the_probe_measures_what_counts():
    model, batches = Padded().eval(), [batch(seed) for seed in range(3)]
    with Probe(model) as probe:
        for given in batches:
            probe.run(given)
    first = probe.records[0]
    rows = torch.cat([picked(given) for given in batches])
    torch.testing.assert_close(first.inputs.values.mean, rows.mean(0))
    torch.testing.assert_close(first.inputs.values.variance, rows.var(0))
    torch.testing.assert_close(first.outputs.variance, model.first(rows).var(0))
    sizes = [int(given["mask"].sum()) for given in batches]
    assert (first.fewest, first.values, first.inputs.values.count) == (
        min(sizes),
        max(sizes),
        sum(sizes),
    )
    samples = [x[:, m].mean(1) for b in batches for x, m in zip(b["x"], b["mask"], strict=True)]
    torch.testing.assert_close(first.inputs.units.means, torch.stack(samples))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: anynorm.GroupNorm(1, C), (2 * C, L * C)),
        (lambda: anynorm.InstanceNorm1d(C), (2, L)),
        (lambda: anynorm.create("ghost", C, size=4), (3 * 2 + L, 4 * L)),
    ],
)
def test_the_fewest_and_the_most_values_of_a_statistic(make, expected):
    mask = torch.ones(N, L, dtype=torch.bool)
    mask[:3, 2:] = False
    mask[4:] = True
    layer, x = make(), torch.randn(N, C, L)
    with Probe(layer) as probe, torch.no_grad():
        layer(x, mask=mask)
    assert (probe.records[0].fewest, probe.records[0].values) == expected


def test_the_doctor_sees_no_drift_in_padding():
    """Zeros in the padding would move every mean."""
    batches = [
        {**b, "x": torch.where(b["mask"][:, None], b["x"], 1e3)} for b in map(batch, range(9))
    ]
    model = recalibrate(Padded(), batches).model
    found = anynorm.doctor(model, batches, checks=[1, 2]).findings
    assert not found


def test_changes_keep_layers_that_get_a_mask_working():
    given = batch()
    model = recalibrate(Padded(), [given]).model.eval()
    expected = model(**given)
    frozen = freeze(model, given)
    ours = convert(model, "anynorm", example=given)
    torch_ = convert(model, "torch", example=given)
    folded = fold(model, given)
    for result in (frozen, ours, torch_, folded):
        torch.testing.assert_close(result.model(**given), expected)
    assert len(torch_.receipt.refused) == 2
    assert isinstance(frozen.model.first, anynorm.FrozenBatchNorm)


def test_folding_leaves_a_layer_with_a_mask():
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(C, C, 1), anynorm.BatchNorm1d(C)
            self.head = nn.Conv1d(C, C, 1)

        def forward(self, x, mask):
            return self.head(self.norm(self.conv(x), mask=mask))

    model, x, mask = Net(), torch.randn(N, C, L), lengths(N, L)
    model(x, mask)
    model.eval()
    result = fold(model, (x, mask), forward=lambda m, given: m(*given))
    assert isinstance(result.model.norm, anynorm.BatchNorm1d)
    torch.testing.assert_close(result.model(x, mask), model(x, mask))


def test_only_layers_of_ours_have_masks():
    x, mask = torch.zeros(2, C, L), torch.ones(2, L, dtype=torch.bool)
    assert mask_of(nn.BatchNorm1d(C), (x, None, mask), {}) is None
    assert mask_of(anynorm.BatchNorm1d(C), (x,), {}) is None
    assert mask_of(anynorm.InstanceNorm1d(C), (x[0], None, mask[0]), {}).shape == (1, L)
    assert mask_of(anynorm.create("layer", L), (x,), {"mask": mask[:, :C]}).shape == (2, C, 1)
