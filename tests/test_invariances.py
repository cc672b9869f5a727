"""The table of invariances, proved on a convolution: each cell that says yes and each that says no.

A change of the weights or the data goes through a convolution without bias and the normalizer; the
output must stay the same where the specification says so, and move where it does not.
"""

import pytest
import torch
from entries import sizes

import anynorm
from anynorm.spec import Invariances

FACTOR, SHIFT = 3.0, 2.0
SAMPLES, UNITS, INPUTS, LENGTH = 6, 4, 3, 9


def scaled_unit(weight, x):
    weight[1] *= FACTOR


def scaled_weights(weight, x):
    weight *= FACTOR


def scaled_sample(weight, x):
    x[2] *= FACTOR


def scaled_data(weight, x):
    x *= FACTOR


def shifted_weights(weight, x):
    weight[1] += SHIFT


CHANGES = {
    "unit_weights": scaled_unit,
    "all_weights": scaled_weights,
    "sample": scaled_sample,
    "data": scaled_data,
    "weight_shift": shifted_weights,
}


def pre_activation_shift(name):
    """What is added to the pre-activations (N, C, L)."""
    shift = torch.zeros(SAMPLES, UNITS, 1, dtype=torch.float64)
    if name == "unit_shift":
        shift[:, 1] = SHIFT
    else:
        shift[2] = SHIFT
    return shift


class Shift(torch.nn.Module):
    amount = torch.zeros(SAMPLES, UNITS, 1, dtype=torch.float64)

    def forward(self, x):
        return x + self.amount


def run(name, weight, x, shift=None):
    """The normalized convolution of `x`; the shift comes between the two."""
    conv = torch.nn.Conv1d(INPUTS, UNITS, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(weight)
    layer = build(name, conv)
    if shift is None:
        return layer(x)
    if isinstance(layer, torch.nn.Sequential):
        return layer[1](layer[0](x) + shift)
    return layer(x) + shift


def build(name, conv):
    row, options = anynorm.catalogue[name], sizes(name)
    if row.spec.on == "input" and name == "batch-per-activation":
        shape = (UNITS, LENGTH - 2)
        return torch.nn.Sequential(conv, anynorm.create(name, shape, eps=0.0, dtype=torch.float64))
    if row.spec.on == "input":
        return anynorm.normalized(conv, name, eps=0.0, **options)
    layer = anynorm.normalized(conv, name)
    fix_gain(layer)
    return layer


def fix_gain(layer):
    """Set γ of weight normalizers, which starts at the weight's own σ, to 1: the formula alone."""
    for module in layer.modules():
        gain = getattr(module, "gain", None)
        if isinstance(module, anynorm.NormalizedWeight):
            gain = module.weight
        if gain is not None:
            torch.nn.init.ones_(gain)


@pytest.mark.parametrize("change", Invariances._fields)
@pytest.mark.parametrize("name", anynorm.catalogue)
def test_the_table_tells_the_truth(name, change):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(UNITS, INPUTS, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(SAMPLES, INPUTS, LENGTH, generator=generator, dtype=torch.float64)
    before = run(name, weight, x)
    if change in CHANGES:
        CHANGES[change](weight, x)
        after = run(name, weight, x)
    else:
        after = run(name, weight, x, pre_activation_shift(change))
    moved = (after - before).abs().max().item()
    if getattr(anynorm.catalogue[name].invariances, change):
        # ε is 0 or at most 1e-5 beside squares of order 1, where it cannot be switched off
        assert moved < 1e-4
    else:
        assert moved > 0.05
