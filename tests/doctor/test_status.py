"""What was examined, and what was not: nothing that was not looked at is healthy."""

import copy

import pytest
import torch
from patients import batches, convolutional, settled
from torch import nn

from anynorm.doctor import doctor

MODEL = settled(convolutional())


class MyNorm(nn.Module):
    """Normalizes by a class of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return x


def test_examined_and_healthy():
    found = doctor(MODEL, batches())
    assert (found.status, found.examined, dict(found.not_examined)) == (0, ("bn1", "bn2"), {})


def test_a_class_of_its_own_is_named():
    found = doctor(settled(convolutional(relu1=MyNorm())), batches())
    assert (found.status, found.healthy) == (3, False)
    assert list(found.not_examined) == ["relu1"]
    assert "MyNorm" in found.not_examined["relu1"]
    assert "too little data to tell" in str(found)


class Standardize(nn.Module):
    """Keeps a running mean, whatever it is called."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(8))

    def forward(self, x):
        return x


class ABN2d(MyNorm):
    """Named as libraries name a batch norm with an activation."""


class Cabinet(MyNorm):
    """Only looks like `bn` in small letters."""


@pytest.mark.parametrize(("kind", "named"), [(Standardize, True), (ABN2d, True), (Cabinet, False)])
def test_a_class_of_its_own_is_told_by_its_name_or_its_statistics(kind, named):
    found = doctor(settled(convolutional(relu1=kind())), batches())
    assert list(found.not_examined) == ["relu1"] * named


@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, batches()[0][0])])
def test_torchscript_is_not_healthy(make):
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        model = make(copy.deepcopy(MODEL))
    found = doctor(model, batches())
    assert found.status == 3
    assert any("TorchScript" in reason for reason in found.not_examined.values())


def test_a_layer_that_no_batch_reaches_is_named_and_hides_nothing():
    model = copy.deepcopy(MODEL)
    model.spare = nn.BatchNorm2d(3)
    model.forward = lambda x: MODEL(x)
    found = doctor(model, batches())
    assert found.not_examined["spare"] == "no batch reached it"


def test_checks_that_all_lack_something_tell_nothing():
    found = doctor(MODEL, [x for x, _ in batches()], checks=[3])
    assert (found.status, len(found.skipped)) == (3, 1)


def test_only_what_was_asked_for_is_listed_as_not_checked():
    found = doctor(MODEL, [x for x, _ in batches()])
    assert {one.check for one in found.skipped if one.asked} == {3}


def test_a_model_made_in_inference_mode_is_examined():
    with torch.inference_mode():
        model = convolutional().eval()
    assert doctor(model, batches()).findings
    assert doctor(model, [x for x, _ in batches()]).fix().receipt.changed
