"""The registry: every case that is measured, generated from one short description."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["CASES", "DTYPES", "Case", "Shape", "quick", "select", "text"]

Shape = tuple[int, ...]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = ("contiguous", "channels_last")
TRAINING = ("forward", "both")

# Shapes of residual networks; the first two are larger than most caches.
IMAGES: tuple[Shape, ...] = (
    (64, 64, 56, 56), (128, 64, 32, 32), (32, 256, 14, 14), (16, 512, 7, 7)
)  # fmt: skip
SMALL_IMAGES: tuple[Shape, ...] = ((8, 64, 8, 8), (2, 3, 5, 5), (32, 257, 15, 15))
ROWS: tuple[Shape, ...] = ((12544, 1024), (4096, 4096), (256, 128), (64, 64), (1000, 257), (7, 5))
WEIGHTS: tuple[Shape, ...] = ((512, 512, 3, 3), (64, 64, 3, 3))
TWO = (IMAGES[0], IMAGES[2])
FUSIONS = ("plain", "relu", "add+relu")

QUICK = ((32, 256, 14, 14), (8, 64, 8, 8), (4096, 4096), (256, 128))
# Smaller inputs are not worth a compiler's call.
FEWEST_VALUES_TO_COMPILE = 100_000


@dataclass(frozen=True)
class Case:
    """One cell: a normalizer on an input, what is fused with it, and what is timed.

    `fusion` is plain, φ's name, or ``add+`` with φ's name: a residual is added before φ.
    `phase` is forward (in training), both (forward and backward) or evaluation.
    """

    normalizer: str
    layout: str
    shape: Shape
    dtype: str
    fusion: str
    phase: str

    @property
    def name(self) -> str:
        """What ``--only`` is matched with."""
        return "/".join((self.setup, self.phase))

    @property
    def setup(self) -> str:
        """The name without the phase: what shares layers and inputs."""
        return "/".join((self.normalizer, self.layout, text(self.shape), self.dtype, self.fusion))

    @property
    def values(self) -> int:
        return math.prod(self.shape)

    @property
    def adds(self) -> bool:
        return self.fusion.startswith("add+")

    @property
    def phi(self) -> str | None:
        return None if self.fusion == "plain" else self.fusion.removeprefix("add+")

    @property
    def compiles(self) -> bool:
        return self.values >= FEWEST_VALUES_TO_COMPILE and self.phase != "evaluation"


def text(shape: Shape) -> str:
    """Return a shape as people write it.

    >>> text((2, 3))
    '2x3'
    """
    return "x".join(map(str, shape))


def block(
    normalizers: str,
    shapes: Sequence[Shape],
    layouts: Sequence[str] = LAYOUTS,
    dtype: str = "fp32",
    fusions: Sequence[str] = ("plain",),
    phases: Sequence[str] = TRAINING,
) -> Iterable[Case]:
    """Yield every combination."""
    for normalizer, layout, fusion, shape, phase in itertools.product(
        normalizers.split(), layouts, fusions, shapes, phases
    ):
        yield Case(normalizer, layout, shape, dtype, fusion, phase)


CASES: tuple[Case, ...] = (
    *block("batch", IMAGES + SMALL_IMAGES, fusions=FUSIONS),
    *block("group instance", IMAGES + SMALL_IMAGES),
    *block("group instance", TWO, fusions=("relu",)),
    *block("batch", TWO, LAYOUTS[:1], fusions=("silu", "gelu")),
    *block("layer rms batch1d", ROWS, LAYOUTS[:1]),
    *block("batch1d", ((4096, 4096), (256, 128)), LAYOUTS[:1], fusions=FUSIONS[1:]),
    *block("layer", ((4096, 4096), (256, 128)), LAYOUTS[:1], fusions=("gelu",)),
    *block("batch", TWO, dtype="bf16", fusions=FUSIONS),
    *block("group instance", TWO, dtype="bf16"),
    *block("layer rms batch1d", ROWS[1:3], LAYOUTS[:1], dtype="bf16"),
    *block("batch", TWO, fusions=FUSIONS, phases=("evaluation",)),
    *block("l1-batch linf-batch filter-response", TWO),
    *block("weight weight-standardization", WEIGHTS, LAYOUTS[:1]),
)


def select(cases: Iterable[Case], only: str = "") -> list[Case]:
    """Keep the cases in whose name the regular expression `only` is found."""
    return [case for case in cases if re.search(only, case.name)]


def quick(cases: Iterable[Case]) -> list[Case]:
    """Keep a few shapes in fp32."""
    return [case for case in cases if case.shape in QUICK and case.dtype == "fp32"]
