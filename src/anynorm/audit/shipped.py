"""Everything that a check of the audit can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from anynorm.audit.compared import Compared, compared
from anynorm.audit.file_norm import FileNorm
from anynorm.audit.foldable import Foldable, batch_norms, gains
from anynorm.audit.program import Op, Program
from anynorm.doctor.case import CannotRunError, Case
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.weights import Manifest

__all__ = ["Shipped", "offset_of"]


@dataclass
class Shipped(Case):
    """A program in a file, its normalizers, and the checkpoint that it should have.

    `model` and `rebuilt` have the normalizers as layers, for the doctor's checks.
    """

    program: Program = field(kw_only=True)
    in_file: Sequence[FileNorm] = ()
    rebuilt: Sequence[Normalizer] = ()
    checkpoint: Mapping[str, Tensor] | None = None

    @cached_property
    def norms(self) -> list[Normalizer]:
        """The layers in the order of the program."""
        return list(self.rebuilt)

    @property
    def stored(self) -> Mapping[str, Tensor]:
        """The checkpoint; raises `CannotRunError` if there is none."""
        if self.checkpoint is None:
            raise CannotRunError("checkpoint=")
        return self.checkpoint

    @cached_property
    def by_layer(self) -> dict[str, FileNorm]:
        """The normalizers by the names of their layers."""
        return {norm.layer: norm for norm in self.in_file}

    @cached_property
    def checkpoint_norms(self) -> dict[str, list[Foldable]]:
        """The batch norms of the checkpoint, with ε by its manifest, or else by the file."""
        settings = {} if self.manifest is None else self.manifest.layers
        eps = {norm.layer: norm.eps for norm in self.in_file}
        eps |= {name: one.eps for name, one in settings.items() if isinstance(one.eps, float)}
        return batch_norms(self.stored, eps)

    @cached_property
    def products(self) -> tuple[list[Compared], list[Op]]:
        """The weights of products against the checkpoint, and those that cannot be compared."""
        others = {n.layer: offset_of(self.manifest, n.layer) for n in self.in_file if not n.keeps}
        folds = {**self.checkpoint_norms, **gains(self.stored, others)}
        return compared(self.program, self.stored, folds)

    @cached_property
    def folded(self) -> set[str]:
        """The normalizers of the checkpoint that are folded into a weight of the file."""
        return {layer for one in self.products[0] for layer in one.layers}


def offset_of(manifest: Manifest | None, layer: str) -> float:
    """What a manifest says to add to the stored γ of a layer.

    >>> offset_of(None, "norm")
    0.0
    """
    settings = None if manifest is None else manifest.layers.get(layer)
    return 0.0 if settings is None or settings.spec is None else settings.spec.learned.offset
