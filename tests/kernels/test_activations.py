"""Each φ at its kinks and where its exponential or cube overflows, beside the layer of torch.nn."""

from __future__ import annotations

from collections.abc import Callable

import on_device
import pytest
import torch
from on_device import needs_triton
from samples import PHIS, Sample, needs_kernels, run
from torch import Tensor

from anynorm.activations import ACTIVATIONS
from anynorm.ops import Statistic

KINKS = (-20, -6, -4, -3.5, -3, -2, -1, -0.1, 0, 0.1, 1, 2, 3, 3.5, 4, 6, 7, 20)
LARGE = (-3e4, -500, -100, 100, 500, 3e4)
BEYOND_HALF = (-1e30, 1e30)


def formula(sample: Sample) -> dict[str, Tensor]:
    return run(sample, "_formula")


BACKENDS = [
    pytest.param(formula, id="formula"),
    pytest.param(run, id="cpu", marks=needs_kernels),
    pytest.param(
        on_device.run,
        id="gpu",
        marks=[needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")],
    ),
]


@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_kinks_and_large_values(
    backend: Callable[[Sample], dict[str, Tensor]], phi: str, dtype: torch.dtype, added: bool
) -> None:
    if backend is on_device.run and dtype == torch.float64:
        pytest.skip("no GPU kernel takes float64")
    values = KINKS + LARGE + (() if dtype == torch.float16 else BEYOND_HALF)
    z = torch.tensor(values, dtype=dtype).expand(4, -1).contiguous()
    dy = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    # μ = 0, s² = 1 and ε = 0, so z itself is what φ is applied to.
    zero = torch.zeros(1, z.shape[1], dtype=torch.float64)
    x, residual = (torch.zeros_like(z), z) if added else (z, None)
    statistic = Statistic([0], True, True, 2.0, 1.0, 0.0)
    found = backend(Sample(x, residual, None, None, dy, statistic, phi, (zero, zero + 1)))

    wide = z.double().requires_grad_()
    y = ACTIVATIONS[phi].module()(wide)
    (dz,) = torch.autograd.grad(y, wide, dy.double())
    # A few roundings of the arithmetic, and one of the result to its own type: of numbers of order
    # one, and of z where φ does not shrink it.
    work, own = (torch.finfo(t).eps for t in (torch.promote_types(dtype, torch.float32), dtype))
    assert y.isfinite().all()
    _near(found["y"], y, 8 * work * (1 + y.abs()) + own * y.abs())
    _near(found["dx"], dz, 8 * work * dy.double().abs() * (1 + dz.abs()) + own * dz.abs())


def _near(found: Tensor, truth: Tensor, bound: Tensor) -> None:
    away = (found.double().cpu() - truth).abs()
    assert (away <= bound).all(), f"off at {truth[~(away <= bound)].tolist()}"
