"""Whether the two sides of a case of the benchmark compute the same, on small inputs."""

import copy
from dataclasses import replace

import torch
from torch.testing import assert_close

from anynorm.bench.layers import inputs

__all__ = ["TOLERANCE", "check_sides", "gradients", "tiny"]

# float32 keeps 24 bits and bfloat16 8; a gradient goes through a few roundings.
TOLERANCE = {"fp32": {"rtol": 1e-4, "atol": 1e-5}, "bf16": {"rtol": 2**-5, "atol": 2**-5}}
NEAR_THE_KINK = 0.05


def tiny(cases):
    """The cases on small inputs, those that differ in nothing else or in the phase once."""

    def shape(case):
        if len(case.shape) == 2:
            return (5, 6)
        return (4, 3, 2, 2) if case.normalizer.startswith("weight") else (2, 6, 3, 4)

    wanted = (case for case in cases if case.phase != "forward")
    return list(dict.fromkeys(replace(case, shape=shape(case)) for case in wanted))


def check_sides(case, mine, torchs):
    """Outputs and gradients of both layers are equal at the same random parameters."""
    torch.manual_seed(0)
    given = inputs(case)
    with torch.no_grad():
        for parameter, target in zip(mine.parameters(), torchs.parameters(), strict=True):
            parameter.add_(torch.randn_like(parameter))
            target.copy_(parameter.view_as(target))
    for layer in (mine, torchs):
        layer.train(case.phase != "evaluation")
    dy = _away_from_the_kink(copy.deepcopy(torchs), given)  # a call moves running statistics
    assert_close(mine(*given.forward), torchs(*given.forward), **TOLERANCE[case.dtype])
    found, expected = (gradients(layer, given, dy) for layer in (mine, torchs))
    for gradient, wanted in zip(found, expected, strict=True):
        assert_close(gradient, wanted.view_as(gradient), **TOLERANCE[case.dtype])


def _away_from_the_kink(layer, given):
    """The random cotangent, but nothing where rounding decides which side of 0 a value is on."""
    before, layer.phi = layer.phi, None
    z = layer(*given.forward)
    layer.phi = before
    return given.dy * (z.detach().abs() > NEAR_THE_KINK)


def gradients(layer, given, dy):
    """Gradients of the input, the residual and the parameters."""
    return torch.autograd.grad(layer(*given.forward), (*given.forward, *layer.parameters()), dy)
