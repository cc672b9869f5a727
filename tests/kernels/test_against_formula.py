"""Outputs and gradients of the kernels are those of the formula in float64, of the same values.

How far they may be off is derived in :mod:`samples`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import TypeVar

import pytest
import torch
from samples import AFFINES, PHIS, SCALES, WAYS, Case, Draw, check, make, needs_kernels, threads

from anynorm.activations import ACTIVATIONS

pytestmark = needs_kernels
T = TypeVar("T")

SMALL = [
    Case("batch", (5, 3)),
    Case("batch", (1, 17)),
    Case("batch", (257, 1)),
    Case("batch", (65, 63), "cut"),
    Case("batch", (16, 257), "stepped"),
    Case("batch", (13, 65), "offset", "linf"),
    Case("batch", (33, 16), "reversed", "l1"),
    Case("batch", (4, 3, 15)),
    Case("batch", (4, 3, 16), "offset"),
    Case("batch", (7, 1, 17), "contiguous", "l1"),
    Case("batch", (3, 17, 13), "channels last"),
    Case("batch", (6, 5, 7), "expanded"),
    Case("batch", (3, 16, 5, 13), "channels last"),
    Case("batch", (2, 65, 3, 3), "channels last", "linf"),
    Case("batch", (2, 64, 3, 5), "channels last", "l1"),
    Case("batch", (2, 1, 9, 7), "channels last"),
    Case("batch", (2, 3, 8, 8), "contiguous", "linf"),
    Case("batch", (3, 5, 6, 4), "cut"),
    Case("batch", (3, 5, 6, 4), "stepped"),
    Case("batch", (3, 5, 4, 3, 7), "channels last"),
    Case("batch", (3, 5, 4, 3, 7)),
    Case("batch", (5, 4, 3, 6), "reversed"),
    Case("batch", (5, 4, 3, 6), "contiguous", "centred, by rms"),
    Case("batch", (1, 1, 1, 3)),
    Case("instance", (2, 3, 17)),
    Case("instance", (5, 1, 65), "offset"),
    Case("instance", (3, 7, 5, 5)),
    Case("instance", (3, 5, 2, 2), "channels last"),
    Case("instance", (2, 63, 4, 4), "channels last"),
    Case("instance", (2, 16, 5, 7), "channels last", "l1"),
    Case("instance", (2, 17, 5, 7), "channels last", "linf"),
    Case("instance", (2, 3, 4, 3, 5)),
    Case("instance", (1, 3, 257), "contiguous", "l1"),
    Case("instance", (2, 5, 65), "contiguous", "linf"),
    Case("instance", (2, 4, 3, 5), "reversed"),
    Case("group", (3, 2, 3, 5)),
    Case("group", (2, 1, 5, 13)),
    Case("group", (2, 5, 1, 17), "offset"),
    Case("group", (3, 2, 8, 4, 4), "contiguous", "l1"),
    Case("group", (3, 2, 5, 3, 3), "groups last"),
    Case("group", (2, 4, 16, 3, 5), "groups last"),
    Case("group", (2, 1, 17, 3, 5), "groups last", "linf"),
    Case("group", (2, 17, 1, 3, 5), "groups last", "l1"),
    Case("group", (2, 3, 5, 2, 3, 2), "groups last"),
    Case("group", (2, 3, 5, 2, 3), "channels last"),
    Case("last", (1, 1)),
    Case("last", (5, 1)),
    Case("last", (7, 2)),
    Case("last", (3, 15)),
    Case("last", (4, 16)),
    Case("last", (5, 17), "offset"),
    Case("last", (1, 65), "contiguous", "l1"),
    Case("last", (9, 63), "contiguous", "linf"),
    Case("last", (65, 257), "contiguous", "rms"),
    Case("last", (17, 64), "cut", "rms"),
    Case("last", (3, 33), "stepped"),
    Case("last", (33, 31), "reversed"),
    Case("last", (5, 37), "expanded"),
    Case("last", (2, 3, 5, 17)),
    Case("last", (2, 3, 5, 16), "contiguous", "l1 about zero"),
    Case("last", (7, 19), "contiguous", "linf about zero"),
    Case("last", (7, 19), "contiguous", "not centred, by std"),
    Case("last", (7, 19), "contiguous", "l3"),
    Case("last two", (3, 5, 7)),
    Case("last two", (2, 3, 4, 17), "offset", "rms"),
    Case("last two", (2, 3, 4, 5), "channels last"),
    Case("weight", (17, 65), "contiguous", "rms"),
    Case("weight", (5, 3, 3, 3), "contiguous", "rms"),
    Case("weight", (5, 16, 3, 3), "channels last", "rms"),
    Case("weight", (1, 257), "contiguous", "std"),
    Case("weight", (16, 3, 5), "offset", "l1 about zero"),
    Case("pixel", (2, 5, 3, 7)),
    Case("pixel", (2, 17, 4, 4), "channels last"),
    Case("pixel", (3, 16, 15), "offset", "rms"),
    Case("pixel", (2, 65, 17), "contiguous", "linf"),
    Case("pixel", (2, 7, 17), "contiguous", "l1"),
    Case("activation", (16, 5)),
    Case("activation", (7, 3, 5, 3)),
    Case("activation", (17, 2, 33), "offset", "l1"),
    Case("activation", (5, 3, 4, 4), "channels last"),
    Case("everything", (3, 5, 7)),
    Case("everything", (2, 5, 3, 3), "channels last"),
    Case("crossed", (3, 4, 5, 7)),
    Case("crossed", (3, 4, 5, 7), "reversed", "l1"),
]
# Enough values for several threads and several pieces of each set.
LARGE = [
    Case("batch", (2, 3, 150, 151)),
    Case("batch", (2, 3, 150, 151), "channels last"),
    Case("batch", (4099, 37)),
    Case("batch", (37, 4099), "contiguous", "linf"),
    Case("batch", (64, 32, 7, 7)),
    Case("batch", (64, 33, 7, 7), "channels last"),
    Case("batch", (3, 2, 33_000), "contiguous", "l1"),
    Case("batch", (2, 65, 17, 19), "reversed"),
    Case("instance", (2, 3, 150, 151)),
    Case("instance", (3, 17, 31, 37), "channels last"),
    Case("instance", (64, 32, 7, 7), "contiguous", "l1"),
    Case("instance", (64, 32, 7, 7), "channels last", "linf"),
    Case("group", (3, 2, 4, 41, 53)),
    Case("group", (3, 2, 5, 41, 53), "groups last"),
    Case("group", (64, 8, 4, 7, 7)),
    Case("group", (64, 8, 5, 7, 7), "groups last", "l1"),
    Case("last", (1, 70_001)),
    Case("last", (2, 70_001), "contiguous", "rms"),
    Case("last", (3, 35_003), "contiguous", "l1"),
    Case("last", (4099, 37), "offset"),
    Case("last", (641, 257), "contiguous", "linf"),
    Case("weight", (3, 35_003), "contiguous", "rms"),
    Case("pixel", (3, 37, 31, 29)),
    Case("activation", (129, 5, 17, 11)),
]
TYPES: list[tuple[torch.dtype, torch.dtype | None]] = [
    (torch.float32, None),
    (torch.float64, None),
    (torch.bfloat16, None),
    (torch.float16, None),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
]
DRAWS = 4  # of each small case; each of the 12 × 2 × 4 × 6 combinations is equally likely


def draw(case: Case, number: int) -> Draw:
    """Some arguments for a case, always the same ones."""
    chance = random.Random(f"{case} {number}")

    def one(of: Sequence[T]) -> T:
        return chance.choice(of)

    dtype, parameters = one(TYPES)
    phi, added, affine = one(PHIS), one((True, False)), one(AFFINES)
    smooth = not ACTIVATIONS[phi].jumps  # else dy has to be zero in places
    beside = one((None, None, "contiguous", "reversed", "cut", "expanded" if smooth else None))
    return Draw(dtype, phi, added, affine, parameters, beside)


@pytest.mark.parametrize("number", range(DRAWS))
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_training(case: Case, number: int) -> None:
    check(make(case, draw(case, number)))


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_training_on_several_threads(case: Case, number: int) -> None:
    with threads(3 + number):
        check(make(case, draw(case, number)))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_given_statistics(case: Case) -> None:
    check(make(case, draw(case, DRAWS), given=True))


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_given_statistics_on_several_threads(case: Case) -> None:
    with threads(4):
        check(make(case, draw(case, DRAWS), given=True))


@pytest.mark.parametrize("given", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("case", WAYS, ids=str)
def test_what_follows(case: Case, phi: str, added: bool, given: bool) -> None:
    for affine in AFFINES:
        check(make(case, Draw(phi=phi, added=added, affine=affine), given))


@pytest.mark.parametrize(("dtype", "parameters"), TYPES, ids=str)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("case", WAYS, ids=str)
def test_types_and_scales(
    case: Case, scale: str, dtype: torch.dtype, parameters: torch.dtype | None
) -> None:
    for phi, added in itertools.product(("identity", "silu"), (False, True)):
        check(make(case._replace(scale=scale), Draw(dtype, phi, added, parameters=parameters)))


# All lengths about one and four blocks, along every way and beside it.
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 47, 63, 64, 65, 127, 129])
def test_odd_sizes(size: int) -> None:
    relu = Draw(phi="relu", added=True)
    for case in (
        Case("batch", (3, 2, size)),
        Case("batch", (size, 3, 5)),
        Case("batch", (2, size, 3)),
        Case("batch", (2, size, 3), "channels last"),
        Case("batch", (2, 3, size), "channels last"),
        Case("instance", (size, 2, 5), "channels last"),
        Case("group", (2, 2, size, 3), "groups last"),
        Case("group", (2, size, 2, 3), "groups last"),
        Case("last", (3, size)),
        Case("last", (size, 3)),
        Case("batch", (size, 3)),
    ):
        check(make(case, relu))
