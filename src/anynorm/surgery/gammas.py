"""The |γ| of a model's layers, and the natural gap between large and small ones."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.report.files import write_whole
from anynorm.report.scales import FLOOR, picture
from anynorm.surgery.model import check_model
from anynorm.surgery.names import Layers, matching
from anynorm.surgery.normalizers import Normalizer, normalizers
from anynorm.surgery.unmatched import Search

__all__ = ["Gammas", "gap_of", "scales_of"]


@dataclass(frozen=True)
class Gammas:
    """The |γ| of each layer with batch or instance norm.

    Args:
        values: the |γ| by the name of the layer.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
        >>> model[0].weight.data *= 1e-5
        >>> found = Gammas.of(model)
        >>> found.gap, f"{found.below:.0%}"
        ((0.001, 1.0), '50%')
    """

    values: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, model: nn.Module, layers: Layers | None = None) -> Gammas:
        """Read the |γ| of a model.

        Args:
            model: the model.
            layers: the layers to read (see :mod:`anynorm.surgery.names`); None for all.

        Returns:
            The |γ|, layer by layer.

        Raises:
            AnynormError: An entry of `layers` names no layer with a γ for each channel.
        """
        found = scales_of(model, layers)
        return cls({name: tuple(g.detach().abs().flatten().tolist()) for name, g in found.items()})

    @cached_property
    def gap(self) -> tuple[float, float] | None:
        """The values on both sides of the natural gap; None if there is no gap."""
        return gap_of([value for layer in self.values.values() for value in layer])

    @property
    def below(self) -> float:
        """The share of the channels below the gap."""
        values = [value for layer in self.values.values() for value in layer]
        return sum(value < self.gap[1] for value in values) / len(values) if self.gap else 0.0

    def picture(self, path: str | os.PathLike[str]) -> None:
        """Write the histogram, with its gap and each layer's channels, as an SVG file."""
        if not self.values:
            raise AnynormError(
                "there is no γ to draw: no layer of the model has a γ for each channel. "
                "Gammas.of(model) reads the γ of batch and instance norms."
            )
        write_whole(path, picture(self.values, self.gap))


def scales_of(model: nn.Module, layers: Layers | None = None) -> dict[str, Tensor]:
    """The γ that scale single channels, by the names of their layers.

    Raises `AnynormError` if an entry of `layers` names no layer with such a γ.

    >>> list(scales_of(nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2))))
    ['0']
    """
    check_model("reading γ", model)
    meant = (norm for norm in normalizers(model) if not _why_not(norm))
    found = {norm.name: gamma for norm in meant if (gamma := norm.affine[0]) is not None}
    wanted = matching(found, layers, "have a γ for each channel")
    return {name: gamma for name, gamma in found.items() if name in wanted}


SEARCH = Search(
    "layers with a γ for each channel", lambda norm: _why_not(norm) or _why_not_a_parameter(norm)
)


def _why_not(norm: Normalizer) -> str:
    """Why the γ of a layer does not scale single channels; "" if it does."""
    gamma = norm.affine[0]
    if gamma is None:
        return "no γ"
    if norm.spec.learned.gain == "scalar":
        return "there is one γ for all channels"
    if not norm.spec.scales_channels or gamma.dim() != 1:
        return "statistics are taken over channels, so γ says nothing about single channels"
    return ""


def _why_not_a_parameter(norm: Normalizer) -> str:
    """Why the γ of a layer can be read and not written; "" where it can."""
    return f"γ is stored as {norm.spec.learned.offset:g} + w" if norm.spec.learned.offset else ""


def gap_of(values: Sequence[float]) -> tuple[float, float] | None:
    """The values on both sides of the gap with the largest ratio; None if no ratio is 2 or more.

    Values below a thousandth of the largest count as a thousandth of it.

    >>> gap_of([0.5, 0.002, 0.001, 0.4]), gap_of([0.5, 0.4])
    ((0.002, 0.4), None)
    """
    top = max(values, default=0.0)
    floored = sorted(max(value, FLOOR * top) for value in values)
    pairs = itertools.pairwise(floored) if top else iter(())
    low, high = max(pairs, key=lambda pair: pair[1] / pair[0], default=(1.0, 1.0))
    return (low, high) if high >= 2 * low else None
