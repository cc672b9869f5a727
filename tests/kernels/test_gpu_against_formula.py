"""Outputs and gradients of the GPU kernels are those of the formula in float64, of the same values.

How far they may be off is derived in :mod:`samples`.
"""

from __future__ import annotations

import math
import random

import pytest
import torch
from on_device import DEVICE, in_parts, needs_triton, run
from samples import AFFINES, PHIS, WAYS, Case, Draw, check, make
from test_against_formula import LARGE, SMALL

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")]

UNSERVED = ("l3", "not centred, by std")
TYPES = [
    (torch.float32, None),
    (torch.bfloat16, None),
    (torch.float16, None),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
]


# Triton's interpreter cuts off what bfloat16 has no digits for, where GPUs round.
LAST_DIGIT = 0.5 if DEVICE == "cuda" else 1.0


def served(case: Case, parts: bool) -> bool:
    if case.scale in UNSERVED or case.pattern == "everything" or math.prod(case.shape) == 1:
        return False
    return not (parts and case.scale.startswith("linf"))


@pytest.fixture
def parts(monkeypatch):
    in_parts(monkeypatch)


def draws(case: Case, count: int, salt: str = "") -> list[Draw]:
    """Some of all combinations, other ones for each case."""
    chance = random.Random(f"{case} {salt}")
    found = []
    for _ in range(count):
        dtype, parameters = chance.choice(TYPES)
        phi, added, affine = chance.choice(PHIS), chance.random() < 0.5, chance.choice(AFFINES)
        beside = chance.choice((None, "contiguous", "channels last", "reversed"))
        found.append(Draw(dtype, phi, added, affine, parameters, beside))
    return found


def agrees(case: Case, draw: Draw, given: bool = False) -> None:
    sample = make(case, draw, given)
    check(sample, run(sample), LAST_DIGIT)


@pytest.mark.parametrize("case", [c for c in SMALL if served(c, False)], ids=str)
def test_whole_sets(case):
    for draw in draws(case, 1):
        agrees(case, draw)


# The interpreter takes its time for each program, and there is one for each few sets.
FEW = [case for case in SMALL if served(case, True) and case.shape[0] <= 20]


@pytest.mark.parametrize("case", FEW[::3], ids=str)
def test_parts_of_sets(case, parts):
    for draw in draws(case, 1, "parts"):
        agrees(case, draw)


@pytest.mark.parametrize("case", WAYS, ids=str)
def test_given_statistics(case):
    for draw in draws(case, 1, "given"):
        agrees(case, draw, given=True)


@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("added", [False, True])
def test_activations(phi, added):
    agrees(Case("batch", (4, 3, 16)), Draw(phi=phi, added=added))


@pytest.mark.parametrize("axis", range(3))
def test_bits_along_each_axis(axis, parts):
    """Whole bytes are written with the values, along the axis that lies together in memory."""
    case = [
        Case("last", (5, 32)),
        Case("batch", (5, 24)),
        Case("batch", (3, 2, 16)),
    ][axis]
    agrees(case, Draw(phi="relu", added=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in SMALL if served(c, False)], ids=str)
def test_more_draws_of_whole_sets(case):
    for draw in draws(case, 5, "more"):
        agrees(case, draw)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in SMALL if served(c, True)], ids=str)
def test_more_draws_of_parts(case, parts):
    for draw in draws(case, 3, "more"):
        agrees(case, draw)
        agrees(case, draw, given=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in LARGE if served(c, True)], ids=str)
def test_large(case):
    for draw in draws(case, 2):
        agrees(case, draw)
