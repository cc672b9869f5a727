"""The ``norm=`` argument of a model: a function that makes a normalizer for some channels."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from anynorm.catalogue import catalogue
from anynorm.errors import AnynormError, ShapeError, UnknownNameError
from anynorm.nn import Norm, NormalizedWeight, create
from anynorm.study.cell import Cell
from anynorm.study.noise import DistributionNoise
from anynorm.surgery.replace import Rows

__all__ = ["ChannelAxis", "MakeNorm", "Norms", "freeze_affine"]


class MakeNorm(Protocol):
    """The type of ``norm=``."""

    def __call__(
        self,
        channels: int,
        *,
        channels_last: bool | None = None,
        qk: bool = False,
        eps: float | None = None,
        **ignored: Any,
    ) -> nn.Module:
        """Return a new normalizer; see `Norms.function`."""
        ...


class Norms:
    """Makes the normalizers of one cell, and counts them.

    Raises:
        UnknownNameError: The catalogue has no such normalizer.
        AnynormError: The option ``qk`` is neither true nor false.
    """

    def __init__(self, cell: Cell) -> None:
        if cell.norm not in catalogue:
            raise UnknownNameError("normalizer", cell.norm, catalogue)
        self.cell = cell
        self.on_input = catalogue[cell.norm].spec.on == "input"
        self.options: dict[str, Any] = dict(cell.norm_options)
        self.qk = self.options.pop("qk", False)
        if not isinstance(self.qk, bool):
            raise AnynormError(f"qk={self.qk!r} in {cell.label}: give qk=true or qk=false.")
        self.count, self.qk_count = 0, 0

    def function(self) -> MakeNorm:
        """Return `make` and `make_qk` as one plain function, as model collections need it.

        >>> cell = Cell(subject="", data="", norm="layer", lr=0.1, steps=1, seed=0)
        >>> norm = Norms(cell).function()
        >>> norm(8, channels_last=True, eps=1e-6, momentum=0.1)(torch.randn(2, 5, 8)).shape
        torch.Size([2, 5, 8])
        """

        def norm(
            channels: int,
            *,
            channels_last: bool | None = None,
            qk: bool = False,
            eps: float | None = None,
            **ignored: Any,  # noqa: ARG001 - torch's layers take these: momentum, affine, device
        ) -> nn.Module:
            if qk:
                return self.make_qk(channels, eps=eps)
            return self.make(channels, channels_last=channels_last, eps=eps)

        return norm

    def make(
        self, channels: int, *, channels_last: bool | None = None, eps: float | None = None
    ) -> nn.Module:
        """Return a new normalizer.

        Args:
            channels: The size of the channel axis.
            channels_last: Whether the channel axis is the last one and not axis 1. If it is None,
                the first input decides.
            eps: ε, if the normalizer's own options do not give it.
        """
        self.count += 1
        if not (self.on_input or self.cell.noise):
            return nn.Identity()
        norm = self._create(self.cell.norm, channels, eps) if self.on_input else nn.Identity()
        if self.cell.noise:
            noise = DistributionNoise(seed=1000 * self.cell.seed + self.count)
            norm = nn.Sequential(norm, noise)
        known = channels_last is False or not isinstance(channels, int)
        return norm if known else ChannelAxis(norm, channels, channels_last)

    def make_qk(self, channels: int, *, eps: float | None = None) -> nn.Module:
        """Return the normalizer of queries or keys (..., channels): RMS norm if the cell has qk.

        This is the L2 norm with a learned scale of Henry et al. 2020, arXiv:2010.04245, but with
        one scale for each value of a head.
        """
        self.qk_count += 1
        if not self.qk:
            return nn.Identity()
        norm = create("rms", channels, eps=eps)
        return norm if self.cell.affine else freeze_affine(norm)

    def _create(self, name: str, channels: int, eps: float | None) -> nn.Module:
        options = {"eps": eps, **self.options}
        norm = create(name, channels, channels_first=True, **options)
        return norm if self.cell.affine else freeze_affine(norm)


class ChannelAxis(Rows):
    """Use a normalizer for inputs (N, C, *) also on inputs whose last axis has the channels.

    Each position then counts as one sample, so statistics of a sample never mix its positions.

    Args:
        inner: The normalizer, for `channels` channels.
        channels: The size of the channel axis.
        channels_last: Whether the channel axis is the last one. If None, the first input decides:
            it is axis 1 if that axis has the right size, otherwise the last.

    Shape:
        (N, C, *) or (*, C); the output has the same shape.

    Raises:
        ShapeError: No axis that can be the channels has the right size, or both axes of an input
            (N, T, C) have it.
    """

    def __init__(self, inner: nn.Module, channels: int, channels_last: bool | None) -> None:
        super().__init__(inner)
        self.channels, self.channels_last = channels, channels_last

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `x`; a residual is passed to the normalizer."""
        if self.channels_last is None:
            self.channels_last = self._found(x)
        if self.channels_last:
            if x.shape[-1] != self.channels:
                raise ShapeError(self._misplaced(x))
            return super().forward(x, residual)
        normalized: Tensor = self.inner(x) if residual is None else self.inner(x, residual)
        return normalized

    def _found(self, x: Tensor) -> bool:
        """Whether the last axis of `x` has the channels; raise if no axis or both axes may."""
        first, last = (size == self.channels for size in (x.shape[1:2].numel(), x.shape[-1]))
        if first and last and x.ndim == 3:
            raise ShapeError(
                f"norm({self.channels}) got an input of shape {tuple(x.shape)}, in which axis 1 "
                f"and the last axis both have size {self.channels}. Say which one has the "
                f"channels: norm({self.channels}, channels_last=True) for (N, T, C), "
                f"norm({self.channels}, channels_last=False) for (N, C, T)."
            )
        if not (first or last):
            raise ShapeError(self._misplaced(x))
        return not first

    def _misplaced(self, x: Tensor) -> str:
        expected = "the last axis" if self.channels_last else "axis 1 or the last one"
        found = [axis for axis in range(1, x.ndim) if x.shape[axis] == self.channels]
        fix = (
            f"Axis {found[-1]} has that size: permute the input, as in x.movedim({found[-1]}, -1)."
            if found
            else "Call norm() with the size of the channel axis."
        )
        return (
            f"norm({self.channels}) got an input of shape {tuple(x.shape)}; {expected} must have "
            f"size {self.channels}. {fix}"
        )


def freeze_affine(layer: nn.Module) -> nn.Module:
    """Fix γ and β of all normalizers in `layer` at their initial values; return `layer`.

    γ starts at 1 and β at 0; γ of a weight normalizer starts at the norm of these weights.

    >>> [p.requires_grad for p in freeze_affine(create("batch", 3)).parameters()]
    [False, False]
    """
    for module in layer.modules():
        kept = isinstance(module, (Norm, NormalizedWeight))
        own = list(module.parameters(recurse=False)) if kept else [getattr(module, "gain", None)]
        for parameter in own:
            if parameter is not None:
                parameter.requires_grad_(False)
    return layer
