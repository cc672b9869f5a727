"""A case of the benchmark as data, and the cases of ``anynorm bench``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

__all__ = ["CASES", "COPY", "DTYPES", "LAYOUTS", "TRAINING", "Case", "Shape", "block"]

Shape = tuple[int, ...]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = ("contiguous", "channels_last")
TRAINING = ("forward", "both")
COPY = 2  # a copy reads and writes each value once


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
        """The name, which ``--only`` matches."""
        return f"{self.setup}/{self.phase}"

    @property
    def setup(self) -> str:
        """The name without the phase; cases with the same setup share layers and inputs."""
        shape = "x".join(map(str, self.shape))
        return "/".join((self.normalizer, self.layout, shape, self.dtype, self.fusion))

    @property
    def values(self) -> int:
        """The number of values of the input."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the input."""
        return self.values * DTYPES[self.dtype].itemsize

    @property
    def moved(self) -> int:
        """How many tensors of the input's size must be read or written (γ, β, … are small).

        Forward: x, the residual, y.  Backward: x, dy, dx, the residual's gradient.
        """
        return 2 + self.adds + (3 + self.adds if self.phase == "both" else 0)

    @property
    def adds(self) -> bool:
        """Whether a residual is added before φ."""
        return self.fusion.startswith("add+")

    @property
    def phi(self) -> str | None:
        """The activation's name, if there is one."""
        return None if self.fusion == "plain" else self.fusion.removeprefix("add+")


def block(
    normalizers: str,
    shapes: Sequence[Shape],
    layouts: Sequence[str] = LAYOUTS,
    dtype: str = "fp32",
    fusions: Sequence[str] = ("plain",),
    phases: Sequence[str] = TRAINING,
) -> Iterator[Case]:
    """Yield every combination; those that differ only in the phase are adjacent."""
    for normalizer, layout, fusion, shape, phase in itertools.product(
        normalizers.split(), layouts, fusions, shapes, phases
    ):
        yield Case(normalizer, layout, shape, dtype, fusion, phase)


IMAGES: tuple[Shape, ...] = ((32, 256, 14, 14), (64, 64, 56, 56))
ROWS: tuple[Shape, ...] = ((256, 128), (4096, 4096))
CASES: tuple[Case, ...] = (
    *block("batch", IMAGES, fusions=("plain", "relu", "add+relu")),
    *block("group instance", IMAGES),
    *block("layer rms batch1d", ROWS, LAYOUTS[:1]),
    *block("batch group instance", IMAGES[:1], dtype="bf16"),
    *block("layer rms", ROWS[1:], LAYOUTS[:1], dtype="bf16"),
    *block("batch", IMAGES, phases=("evaluation",)),
)
