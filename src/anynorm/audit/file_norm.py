"""A normalizer as a file has it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anynorm.audit.program import Op

__all__ = ["FileNorm"]


@dataclass(frozen=True)
class FileNorm:
    """A normalizer in a file.

    `ops` has its operators, the one that takes the input first; there are several if an exporter
    decomposed it.  `gain` is γ as it multiplies; `offset` is what the program adds to the stored
    parameter for it, as in 1 + w.  `statistics` is the type in which they are computed, if the file
    says that it has 16 bits.
    """

    family: str
    layer: str
    ops: tuple[Op, ...]
    gain: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None
    eps: float | None = None
    offset: float = 0.0
    momentum: float = 0.1
    training: bool = False
    groups: int | None = None
    batches: Tensor | None = None
    statistics: str = ""
    shape: tuple[int, ...] = ()

    @property
    def decomposed(self) -> bool:
        """Whether several operators compute it."""
        return len(self.ops) > 1

    @property
    def uses_batch(self) -> bool:
        """Whether it is a batch norm that uses the statistics of each batch."""
        return self.family == "batch" and (self.training or self.mean is None)

    @property
    def keeps(self) -> bool:
        """Whether it has running statistics."""
        return self.mean is not None or self.variance is not None

    @property
    def by_constants(self) -> bool:
        """Whether it is γ · (x − mean) / √(var + ε) + β with stored statistics."""
        return self.mean is not None and self.variance is not None and not self.training
