"""The normalizers that are compared: torch.nn's, and those that are composed of its operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import anynorm
from anynorm.bench import layers
from anynorm.bench.cases import Case, Shape
from anynorm.bench.layers import Normalizer
from benchmarks.speed.compositions import (
    Deviation,
    Gemma,
    Llama,
    Pixel,
    Renorm,
    Response,
    ScaleNorm,
    Standardized,
    WeightNorm,
)

__all__ = ["NORMALIZERS", "TWINS", "ours", "theirs"]

# Torch has these itself; the others are composed of its operators.
TWINS = {*layers.NORMALIZERS, "weight"}


def _created(name: str, theirs: Callable[[Shape], nn.Module]) -> Normalizer:
    return Normalizer(lambda shape, phi: anynorm.create(name, shape[1], activation=phi), theirs)


def _of_weight(name: str, shape: Shape, _: str | None) -> nn.Module:
    row = anynorm.catalogue[name]
    return anynorm.NormalizedWeight(row.spec, torch.randn(shape), row.eps)


NORMALIZERS = {
    **layers.NORMALIZERS,
    "l1-batch": _created(
        "l1-batch", lambda shape: Deviation(shape[1], _mean_magnitude, math.sqrt(math.pi / 2))
    ),
    "linf-batch": _created(
        "linf-batch",
        lambda shape: Deviation(
            shape[1], _largest, 1 / math.sqrt(2 * math.log(math.prod(shape) // shape[1]))
        ),
    ),
    "filter-response": _created("filter-response", lambda shape: Response(shape[1])),
    "weight": Normalizer(partial(_of_weight, "weight"), WeightNorm),
    "weight-standardization": Normalizer(
        partial(_of_weight, "weight-standardization"), Standardized
    ),
    "pixel": _created("pixel", lambda _: Pixel()),
    "scale": _created("scale", lambda shape: ScaleNorm(shape[1])),
    "gemma-rms": _created("gemma-rms", lambda shape: Gemma(shape[1])),
    "llama-rms": _created("llama-rms", lambda shape: Llama(shape[1])),
    "batch-renorm": _created("batch-renorm", lambda shape: Renorm(shape[1])),
}


def _mean_magnitude(d: Tensor, axes: tuple[int, ...]) -> Tensor:
    return d.abs().mean(axes, keepdim=True)


def _largest(d: Tensor, axes: tuple[int, ...]) -> Tensor:
    return d.abs().amax(axes, keepdim=True)


def ours(case: Case, device: str = "cpu") -> nn.Module:
    """anynorm's layer, which does it all."""
    return layers.ours(case, device, NORMALIZERS)


def theirs(case: Case, device: str = "cpu") -> nn.Module:
    """What people write with torch in its stead."""
    return layers.theirs(case, device, NORMALIZERS)
