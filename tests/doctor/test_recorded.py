"""Check 26 compares the normalizers with the manifest of their weights."""

import pytest
import torch
from patients import MODEL, batches, edited
from torch import nn

import anynorm
from anynorm.doctor import doctor


def loose(model):
    model.bn1.eps = model.bn2.eps = 1e-3


def test_a_setting_of_several_layers_is_one_finding_whose_fix_sets_it():
    model, manifest = edited(loose), anynorm.manifest(MODEL)
    model.bn1.momentum = 0.9
    first, second = doctor(model, manifest=manifest, checks=[32]).findings
    words = "ε is 0.001 and was recorded as 1e-05, in 2 layers: 'bn1', 'bn2'"
    assert (first.message, first.severity) == (words, "error")
    assert "the other convention" in second.message
    assert second.severity == "info"
    exec(first.fix, {"manifest": manifest, "model": model})
    assert model.bn1.eps == model.bn2.eps == 1e-5
    assert model.bn1.momentum == 0.1
    assert doctor(model, manifest=manifest, checks=[32]).findings == ()


@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_with_batches_norms_of_other_libraries_are_compared_too(eps):
    class Foreign(nn.Module):
        def __init__(self, eps):
            super().__init__()
            self.eps = eps

        def forward(self, x):
            return x * (x.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt()

    trained, model = (nn.Sequential(nn.Linear(6, 8), Foreign(e)) for e in (1e-6, eps))
    data = [torch.randn(4, 6) for _ in range(2)]
    found = doctor(model, data, manifest=anynorm.manifest(trained, data[0]), checks=[32]).findings
    assert [one.layer for one in found] == ([] if eps == 1e-6 else ["1"])


def test_without_a_manifest_nobody_is_asked_for_one():
    [skipped] = doctor(MODEL, batches(), checks=[32]).skipped
    assert not skipped.asked
