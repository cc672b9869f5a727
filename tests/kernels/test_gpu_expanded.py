"""Expanded tensors on the GPU kernels, as sums and averages of outputs hand them back as gradients.

A kernel loads what is the same along an axis once, but counts it as often as it is there.
"""

from __future__ import annotations

import pytest
from on_device import in_parts, needs_triton, run
from samples import LAYOUTS, Case, Draw, check, make
from torch import Tensor

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]


def along(*axes: int):
    """A layout: the first value along these axes stands for all."""

    def expand(x: Tensor) -> Tensor:
        first = [slice(1) if axis in axes else slice(None) for axis in range(x.dim())]
        return x[tuple(first)].expand_as(x)

    return expand


EXPANDED = {"pooled": along(2), "by channel": along(0, 2), "all": along(0, 1, 2)}
CASES = [Case("batch", (4, 3, 10)), Case("last", (3, 2, 12))]


@pytest.fixture(autouse=True)
def layouts(monkeypatch):
    for name, layout in EXPANDED.items():
        monkeypatch.setitem(LAYOUTS, name, layout)


@pytest.fixture(params=["whole", "parts"])
def way(request, monkeypatch):
    """Sets that are taken as a whole, and sets that are too large for it."""
    if request.param == "parts":
        in_parts(monkeypatch)


@pytest.mark.parametrize(
    ("expanded", "phi"),
    [("pooled", "identity"), ("by channel", "leaky_relu"), ("all", "identity"), ("all", "silu")],
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_that_come_back(case, phi, expanded, way):
    sample = make(case, Draw(phi=phi, beside=expanded))
    assert 0 in sample.dy.stride()
    check(sample, run(sample))


@pytest.mark.parametrize("expanded", EXPANDED)
def test_residuals(expanded):
    sample = make(CASES[0], Draw(phi="silu", added=True, beside=expanded))
    check(sample, run(sample))


@pytest.mark.parametrize("expanded", EXPANDED)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_inputs(case, expanded):
    sample = make(case._replace(layout=expanded, scale="rms"), Draw(beside="contiguous"))
    check(sample, run(sample))


@pytest.mark.parametrize("expanded", EXPANDED)
def test_given_statistics(expanded):
    sample = make(CASES[0], Draw(phi="leaky_relu", beside=expanded), given=True)
    check(sample, run(sample))
