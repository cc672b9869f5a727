"""The last values of a run, which fill no whole register, and the rounding to 16 bits."""

import pytest
import torch
from samples import needs_kernels

from anynorm.ops import Affine, Statistic, normalize, standardize

pytestmark = needs_kernels
TYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1 << 16, 255])
def test_every_16_bit_number_is_kept(dtype, length):
    numbers = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    x = numbers[: (1 << 16) // length * length].reshape(1, -1, length)
    beside = torch.zeros(1, x.shape[1], 1)
    y = normalize(x, beside, torch.ones_like(beside), Affine(), 0.0)
    torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", TYPES)
def test_runs_of_every_length_up_to_two_registers_more(dtype):
    for length in range(128, 161):
        x = torch.randn(2, 3, length).to(dtype).requires_grad_()
        dy = torch.randn(2, 3, length).to(dtype)
        weight = torch.rand(1, 3, 1).requires_grad_()
        statistic = Statistic([0, 2], True, True, 2.0, 1.0, 1e-5)
        # The result is rounded once, and sums of at most 320 values are in float32.
        bound = max(torch.finfo(dtype).eps, 320 * torch.finfo(torch.float32).eps)
        y = standardize(x, Affine(weight), statistic)[0]
        found = torch.autograd.grad(y, (x, weight), dy)
        wide, gain = (t.detach().double().requires_grad_() for t in (x, weight))
        var, mean = torch.var_mean(wide, (0, 2), correction=0, keepdim=True)
        right = (wide - mean) / torch.sqrt(var + 1e-5) * gain
        expected = torch.autograd.grad(right, (wide, gain), dy.double())
        for ours, theirs in zip((y, *found), (right, *expected), strict=True):
            size = theirs.abs().max().item()
            torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=bound * max(1, size))
