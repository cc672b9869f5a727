"""One cell of the benchmark as data, and how cells are chosen."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from anynorm.errors import AnynormError, UnknownNameError

__all__ = ["DTYPES", "LAYOUTS", "TRAINING", "Case", "Shape", "block", "select", "text"]

Shape = tuple[int, ...]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = ("contiguous", "channels_last")
TRAINING = ("forward", "both")
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

    @staticmethod
    def of(row: Mapping[str, Any]) -> Case:
        """Return the case of a row of results.

        >>> case = Case("layer", "contiguous", (4, 8), "fp32", "plain", "both")
        >>> Case.of(case.described) == case
        True
        """
        names = [field.name for field in fields(Case) if field.name != "shape"]
        return Case(shape=tuple(row["shape"]), **{name: row[name] for name in names})

    @property
    def described(self) -> dict[str, Any]:
        """The case as plain values."""
        return {**asdict(self), "shape": list(self.shape)}

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
        """How many values the input has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the input."""
        return self.values * DTYPES[self.dtype].itemsize

    @property
    def adds(self) -> bool:
        """Whether a residual is added before φ."""
        return self.fusion.startswith("add+")

    @property
    def phi(self) -> str | None:
        """The activation's name, if there is one."""
        return None if self.fusion == "plain" else self.fusion.removeprefix("add+")

    @property
    def compiles(self) -> bool:
        """Whether compilers take part."""
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
) -> Iterator[Case]:
    """Yield every combination; those that differ in the phase alone stand together."""
    for normalizer, layout, fusion, shape, phase in itertools.product(
        normalizers.split(), layouts, fusions, shapes, phases
    ):
        yield Case(normalizer, layout, shape, dtype, fusion, phase)


def select(cases: Iterable[Case], only: str = "", **wanted: Sequence[str] | None) -> list[Case]:
    """Keep the cases that have one of the values `wanted` of a field, by the field's name.

    In their names the regular expression `only` must be found.  Raises `UnknownNameError` for a
    value that none of the cases has.

    >>> cases = block("layer rms", [(4, 8)], ("contiguous",))
    >>> [case.name for case in select(cases, normalizer=["rms"], phase=["both"])]
    ['rms/contiguous/4x8/fp32/plain/both']
    """
    found = list(cases)
    for field, values in wanted.items():
        known = {getattr(case, field) for case in found}
        for value in values or ():
            if value not in known:
                raise UnknownNameError(f"{field} in these cases", value, known)
    try:
        pattern = re.compile(only)
    except re.error as error:
        raise AnynormError(f"only={only!r} is no regular expression: {error}.") from error
    return [case for case in found if pattern.search(case.name) and _has(case, wanted)]


def _has(case: Case, wanted: Mapping[str, Sequence[str] | None]) -> bool:
    return all(not values or getattr(case, field) in values for field, values in wanted.items())
