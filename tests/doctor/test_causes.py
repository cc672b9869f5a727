"""A planted cause is named first, its repair is tried, and what would do harm is not offered."""

import copy

import pytest
import torch
from patients import batches, convolutional, dense, settled
from torch import nn

import anynorm
from anynorm.doctor import doctor
from anynorm.doctor.causes.table import CAUSES

MODEL = settled(convolutional())
WIDE = settled(convolutional(), batches(24, 32))


def edited(edit, model=MODEL):
    model = copy.deepcopy(model)
    with torch.no_grad():
        edit(model)
    return model


def fed(change):
    """Changed images without labels."""
    return [change(x) for x, _ in batches(24, 32)]


def first(found):
    return found.causes[0] if found.causes else None


class Shared(nn.Module):
    """One batch norm behind two convolutions whose outputs have other moments."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = (nn.Conv2d(3, 8, 3, bias=False) for _ in range(2))
        self.bn, self.head = nn.BatchNorm2d(8), nn.Linear(128, 4)

    def forward(self, x):
        y = self.bn(self.one(x)).relu() + self.bn(4 * self.two(x) + 3).relu()
        return self.head(y.flatten(1))


class AveragedModel(nn.Module):
    """Averaged weights with the statistics of one model, as torch's class of this name has them."""

    def __init__(self, model):
        super().__init__()
        self.module = edited(averaged, model)
        self.register_buffer("n_averaged", torch.tensor(5))

    def forward(self, x):
        return self.module(x)


def drifted(model):
    """The statistics of an earlier model: all layers, in both directions."""
    torch.manual_seed(3)
    for bn in (model.bn1, model.bn2):
        bn.running_mean += bn.running_var.sqrt() * torch.randn(8)
        bn.running_var *= torch.tensor([0.3, 3.0]).repeat(4)


def averaged(model):
    for layer in (model.conv1, model.conv2):
        layer.weight *= torch.linspace(0.3, 0.8, 8).view(-1, 1, 1, 1)


def young(model):
    for bn in (model.bn1, model.bn2):
        bn.reset_running_stats()
        bn.momentum = 0.01
    model.train()
    for x, _ in batches(10):
        model(x)
    model.eval()


def epsilon(model):
    model.bn1.eps = model.bn2.eps = 3.0


def broken(model):
    model.bn1.running_var[2] = torch.nan


def one(model):
    model.bn2.running_mean += 2 * torch.randn(8) * model.bn2.running_var.sqrt()


def frozen(model):
    model.train()
    model.bn2.requires_grad_(False)


def hasty(model):
    model.bn2.momentum = 0.99


def converted():
    fused = anynorm.BatchNorm2d(8, activation="tanh")
    source = settled(convolutional(bn1=fused, relu1=nn.Identity()))
    model = copy.deepcopy(source)
    model.bn1 = nn.BatchNorm2d(8)
    model.load_state_dict(source.state_dict())
    return doctor(model.eval(), batches(), source=source)


def on(edit):
    return lambda: doctor(edited(edit, WIDE), batches(24, 32))


DROPPED = settled(dense(drop=nn.Dropout(0.5)), batches(24, 32))
PLANTED = [
    ("input preprocessing", lambda: doctor(WIDE, fed(lambda x: 16 * x)), "x / 16"),
    ("input preprocessing", lambda: doctor(WIDE, fed(lambda x: x / 255)), "x * 255"),
    ("input preprocessing", lambda: doctor(WIDE, fed(lambda x: x.flip(1) + 0)), "x.flip(1)"),
    ("input preprocessing", lambda: doctor(WIDE, fed(lambda x: 4 * x + 8)), "x"),
    ("shared layer", lambda: doctor(settled(Shared()), batches()), "deepcopy"),
    ("averaged weights without statistics", on(averaged), "recalibrate"),
    (
        "averaged weights without statistics",
        lambda: doctor(AveragedModel(WIDE).eval(), batches(24, 32)),
        "recalibrate",
    ),
    (
        "averaged weights without statistics",
        lambda: doctor(WIDE, batches(), averaged=edited(averaged)),
        "recalibrate(averaged",
    ),
    ("ε changed", on(epsilon), "eps = 1e-05"),
    ("too few batches", on(young), "recalibrate"),
    (
        "running statistics that lag behind the weights",
        lambda: doctor(edited(drifted, WIDE), fed(lambda x: x)),
        "recalibrate",
    ),
    ("statistics of bn2 lost or changed", on(one), "recalibrate"),
    ("broken values", on(broken), "reset_running_stats"),
    ("frozen layers whose statistics move", on(frozen), "freeze"),
    ("momentum in the other convention", on(hasty), "momentum = 0.01"),
    ("conversion changed the function", converted, "convert(source"),
    ("another domain", lambda: doctor(WIDE, batches(24, 32), target=batches(shift=3.0)), "target"),
    ("small batches", lambda: doctor(settled(dense()), batches(size=4)), "group"),
    (
        "last batch of one sample",
        lambda: doctor(
            settled(dense()), [*batches(), (torch.randn(1, 3, 6, 6), torch.tensor([1]))]
        ),
        "drop_last",
    ),
    ("dropout in front of batch norm", lambda: doctor(DROPPED, batches(24, 32)), ""),
    ("train mode", lambda: doctor(edited(nn.Module.train, WIDE), batches()), "model.eval()"),
]


@pytest.mark.parametrize(
    ("name", "examine", "fix"),
    [pytest.param(*row, id=f"{row[0]}-{index}") for index, row in enumerate(PLANTED)],
)
def test_a_planted_cause_is_named_first(name, examine, fix):
    found = examine()
    cause = first(found)
    assert cause is not None, found
    assert cause.name == name, str(found)
    assert fix in cause.fix
    assert cause.evidence
    assert cause.effect
    assert cause.findings
    assert all(any(one is f for f in found.findings) for one in cause.findings)


def test_every_row_has_a_planted_cause():
    planted = {row[0] for row in PLANTED}
    assert {row.name for row in CAUSES} - planted == {"statistics of one layer"}
