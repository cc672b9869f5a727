"""One table of activations: every backend knows these names and this constant, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from anynorm import kernels, phi, reference
from anynorm.activations import ACTIVATIONS, activation
from anynorm.errors import UnknownNameError
from anynorm.reference.activations import ACTIVATIONS as OF_REFERENCE

KERNELS = Path(kernels.__file__).parent


def test_all_tables_hold_the_same_names() -> None:
    assert set(ACTIVATIONS) == set(OF_REFERENCE) == set(phi.PHIS)
    table = (KERNELS / "cpu/call.h").read_text().partition("kNames[] = {")[2].partition("};")[0]
    assert set(re.findall(r'"(\w+)", Phi::', table)) == set(phi.PHIS)
    enum = re.search(r"enum class Phi : int \{(.*?)\}", (KERNELS / "cpu/problem.h").read_text())
    assert enum is not None
    assert set(enum[1].replace(" ", "").split(",")) == set(phi.PHIS)


def test_the_leak_stands_in_one_place() -> None:
    sources = [*KERNELS.rglob("*.h"), *KERNELS.rglob("*.cpp"), *KERNELS.parent.rglob("*.py")]
    written = re.compile(r"(?i)leak\w*\W*=.*\b0\.01\b")
    naming = [path for path in sources if written.search(path.read_text())]
    assert naming == [KERNELS.parent / "phi.py"]
    below = torch.tensor([-3.0], dtype=torch.float64)
    wanted = pytest.approx(-3 * phi.LEAK)
    assert activation("leaky_relu").forward(below).item() == wanted
    assert OF_REFERENCE["leaky_relu"].value(np.array([-3.0])).item() == wanted
    assert torch.nn.LeakyReLU().negative_slope == phi.LEAK


def test_unknown_names_are_refused_everywhere() -> None:
    with pytest.raises(UnknownNameError, match="rleu"):
        activation("rleu")
    with pytest.raises(UnknownNameError, match="rleu"):
        reference.activations.activation("rleu")


def test_triton_has_a_branch_for_each_and_none_for_others() -> None:
    source = (KERNELS / "triton/phi.py").read_text()
    for function in ("activate", "descend"):
        body = source.partition(f"def {function}(")[2].partition("@triton.jit")[0]
        assert set(re.findall(r'PHI == "(\w+)"', body)) == set(phi.PHIS)
        assert "static_assert" in body
