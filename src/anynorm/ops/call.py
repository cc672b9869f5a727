"""The one record of a call, which functions and layers build and every backend takes whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from anynorm.ops.process_groups import Ranks
from anynorm.ops.running import Running
from anynorm.ops.types import PLAIN, Affine, Epilogue
from anynorm.pattern import ResolvedPattern
from anynorm.spec import Spec

__all__ = ["NO_SIZES", "NormCall"]

NO_SIZES: Mapping[str, int] = MappingProxyType({})


class NormCall(NamedTuple):
    """Everything about a call of a normalizer but its input.

    `plan` is the pattern of `spec` for the input's rank, `sizes` has the parts of split axes.
    `epilogue` is what follows γ and β, and `function` a φ that no operator knows.  `running`
    statistics are updated in training and used in evaluation.  `ranks` are the processes that share
    statistics, `mask` says which values count.
    """

    spec: Spec
    plan: ResolvedPattern
    affine: Affine
    running: Running | None = None
    training: bool = True
    eps: float = 1e-5
    sizes: Mapping[str, int] = NO_SIZES
    epilogue: Epilogue = PLAIN
    function: Callable[[Tensor], Tensor] | None = None
    ranks: Ranks | None = None
    mask: Tensor | None = None

    @property
    def evaluates(self) -> bool:
        """Whether running statistics take the place of the input's own."""
        return self.running is not None and not self.training
