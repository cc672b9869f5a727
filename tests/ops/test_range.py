"""From which to which values the statistics are right: the table of docs/layers.md."""

from __future__ import annotations

import math

import pytest
import torch

import anynorm  # noqa: F401 - which has the operators

OPERATORS = torch.ops.anynorm
# center, about_mean, p and C; the least and the largest power of ten, float32's and float64's.
STATISTICS = {
    "std": ((True, True, 2.0, 1.0), (-18, 16), (-150, 150)),
    "rms": ((False, False, 2.0, 1.0), (-18, 16), (-150, 150)),
    "l1": ((True, True, 1.0, 1.25), (-35, 34), (-150, 150)),
    "linf": ((True, True, math.inf, 0.4), (-35, 34), (-150, 150)),
    "l3": ((True, True, 3.0, 1.0), (-12, 11), (-100, 100)),
}
TYPES = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float64: 1e-9}


@pytest.mark.parametrize("operator", ["standardize", "standardize_formula"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("end", [0, 1], ids=["least", "largest"])
@pytest.mark.parametrize("name", STATISTICS)
def test_outputs_and_gradients(name: str, end: int, dtype: torch.dtype, operator: str) -> None:
    statistic, single, double = STATISTICS[name]
    exponent = (double if dtype == torch.float64 else single)[end]
    torch.manual_seed(0)
    scale = 10.0**exponent
    x, dy = ((torch.randn(64, 4, 16, dtype=torch.float64) * s).to(dtype) for s in (scale, 1.0))
    # ε is 0, of which small values would be lost; what is right does not depend on the scale then.
    found = _run(operator, x, dy, statistic)
    truth = _run("standardize_formula", x.double() / scale, dy.double(), statistic)
    for mine, right in zip(found, (truth[0], truth[1] / scale), strict=True):
        away = (mine.double() - right).abs().max() / right.abs().max()
        assert away < TYPES[dtype]


def _run(
    operator: str, x: torch.Tensor, dy: torch.Tensor, statistic: tuple[bool, bool, float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    rest = ([0, 2], *statistic, 0.0, "identity")
    y, mean, square, sign_mask = getattr(OPERATORS, operator)(x, None, None, None, *rest)
    backward = getattr(OPERATORS, operator.replace("standardize", "standardize_backward"))
    dx = backward(dy, x, None, sign_mask, mean, square, None, None, *rest)[0]
    return y, dx
