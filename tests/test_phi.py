"""The tables of activations: one for each backend.  Each has every row of `anynorm.activations`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anynorm import kernels, phi, reference
from anynorm.activations import ACTIVATIONS, activation
from anynorm.errors import UnknownNameError

ROOT = Path(__file__).parent.parent
KERNELS = Path(kernels.__file__).parent
LAYERS = (ROOT / "docs/layers.md").read_text("utf-8")
DOCUMENTED = LAYERS.partition("## Residuals and activations")[2].partition("\n## ")[0]
CPU = (KERNELS / "cpu/activations.h").read_text("utf-8")


def of_triton() -> list[str]:
    source = (KERNELS / "triton/phi.py").read_text("utf-8")
    body = source.partition("def table(")[2].partition("@triton.jit")[0]
    assert "static_assert" in body  # a name without a row fails to compile
    return [*pytest.importorskip("anynorm.kernels.triton.phi").PHIS]


# Where a table stands, and the names in it.
TABLES: dict[str, Callable[[], list[str]]] = {
    "the CPU kernels (kernels/cpu/activations.h)": lambda: re.findall(r" row\((\w+),", CPU),
    "the GPU kernels (kernels/triton/phi.py)": of_triton,
    "the reference (reference/activations.py)": lambda: [*reference.ACTIVATIONS],
    "the documentation (docs/layers.md)": lambda: re.findall(
        r"^\| `(\w+)` \|", DOCUMENTED, re.MULTILINE
    ),
}


@pytest.mark.parametrize("table", TABLES)
def test_no_table_lacks_an_activation(table: str) -> None:
    names = TABLES[table]()
    assert len(names) == len(set(names)), f"{table} has a name twice"
    missing = [name for name in ACTIVATIONS if name not in names]
    assert not missing, f"{table}: no row for {', '.join(missing)}"
    others = [name for name in names if name not in ACTIVATIONS]
    assert not others, (
        f"anynorm/activations.py: no row for {', '.join(others)}, but {table} has one"
    )


def test_the_cpu_kernels_keep_bits_for_the_same_activations() -> None:
    kept = re.findall(r" row\((\w+), true,", CPU)
    assert kept == [name for name, known in ACTIVATIONS.items() if known.by_sign]


def test_the_leak_stands_in_one_place() -> None:
    sources = [*KERNELS.rglob("*.h"), *KERNELS.rglob("*.cpp"), *KERNELS.parent.rglob("*.py")]
    written = re.compile(r"(?i)leak\w*\W*=.*\b0\.01\b")
    naming = [path for path in sources if written.search(path.read_text("utf-8"))]
    assert naming == [KERNELS.parent / "phi.py"]
    assert torch.nn.LeakyReLU().negative_slope == phi.LEAK


# Kinks and their neighbours, and values whose exponential or cube overflows.
VALUES = (-1e30, -6e4, -100, -20, -6, -4, -3, -1, -0.1, 0, 0.1, 1, 3, 4, 6, 7, 20, 100, 6e4, 1e30)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_are_those_of_the_layer_of_torch(name: str) -> None:
    known, z = ACTIVATIONS[name], torch.tensor(VALUES, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    y = known.module()(z)
    torch.testing.assert_close(known.forward(z), y, rtol=0, atol=0)
    (dz,) = torch.autograd.grad(y, z, dy)
    torch.testing.assert_close(known.backward(dy, z), dz, rtol=1e-13, atol=1e-13)
    narrow = z.detach().float()
    torch.testing.assert_close(known.forward(narrow), y.float())
    torch.testing.assert_close(known.backward(dy.float(), narrow), dz.float())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_jump_only_where_the_table_says_so(name: str) -> None:
    known, step = ACTIVATIONS[name], 1e-6
    middle = torch.arange(-80, 81, dtype=torch.float64) / 8
    below, above = (known.backward(torch.ones_like(z), z) for z in (middle - step, middle + step))
    jumps = middle[(above - below).abs() > 10 * step]  # no second derivative is above 1.2
    assert jumps.tolist() == list(known.jumps)


def test_unknown_names_are_refused_everywhere() -> None:
    with pytest.raises(UnknownNameError, match="rleu"):
        activation("rleu")
    with pytest.raises(UnknownNameError, match="rleu"):
        reference.activations.activation("rleu")
