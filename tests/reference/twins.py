"""Each catalogue entry once more in plain differentiable torch, for comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from anynorm.activations import ACTIVATIONS

EPS = 1e-5
Shape = tuple[int, ...]


def affine(z: Tensor, gamma: Tensor, beta: Tensor, first: int = 1) -> Tensor:
    shape = (1,) * first + tuple(gamma.shape) + (1,) * (z.ndim - first - gamma.ndim)
    return z * gamma.reshape(shape) + beta.reshape(shape)


def over(dims: Callable[[int], Shape], **options: Any) -> Callable[[Tensor], Tensor]:
    """Standardize over axes that depend on the rank."""
    return lambda x: standardize(x, dims(x.ndim), **options)


def standardize(
    x: Tensor, dims: Shape, p: float = 2.0, *, about_mean: bool = True, factor: float = 1.0
) -> Tensor:
    centered = x - x.mean(dims, keepdim=True)
    size = (centered if about_mean else x).abs()
    if math.isinf(p):
        s = size.amax(dims, keepdim=True)
    else:
        s = (size**p).mean(dims, keepdim=True) ** (1 / p)
    return centered / ((factor * s) ** 2 + EPS).sqrt()


def all_but_channels(rank: int) -> Shape:
    return (0, *range(2, rank))


def positions(rank: int) -> Shape:
    return tuple(range(2, rank))


def ghost(x: Tensor, size: int = 4) -> Tensor:
    parts = [F.batch_norm(part, None, None, training=True, eps=EPS) for part in x.split(size)]
    return torch.cat(parts)


def rms(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[1:], eps=EPS)


def response(x: Tensor) -> Tensor:
    return x / (x.square().mean(positions(x.ndim), keepdim=True) + 1e-6).sqrt()


def linf(x: Tensor) -> Tensor:
    count = x.numel() // x.shape[1]
    return standardize(x, all_but_channels(x.ndim), math.inf, factor=(2 * math.log(count)) ** -0.5)


def whiten(x: Tensor, root: Callable[[Tensor], Tensor], groups: int = 2) -> Tensor:
    rows = x.transpose(0, 1).reshape(groups, x.shape[1] // groups, -1)
    d = rows - rows.mean(-1, keepdim=True)
    covariance = d @ d.mT / d.shape[-1] + EPS * torch.eye(d.shape[1], dtype=x.dtype)
    moved = x.transpose(0, 1).shape
    return (root(covariance) @ d).reshape(moved).transpose(0, 1)


def zca_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag_embed(values**-0.5) @ vectors.mT


def pca_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    largest = vectors.detach().abs().argmax(-2, keepdim=True)
    vectors = vectors * vectors.detach().gather(-2, largest).sign()
    return torch.diag_embed(values**-0.5) @ vectors.mT


class Twin(NamedTuple):
    """ẑ in torch; the options of create() and the shapes to try; where γ lies."""

    normalize: Callable[[Tensor], Tensor]
    shapes: tuple[Shape, ...]
    options: Mapping[str, Any] = MappingProxyType({})
    channels: Callable[[Shape], int | Shape] = lambda shape: shape[1]
    first: int = 1


# Three values at least to each μ and σ: two are ±1 whatever they were, and their dx is rounding.
ANY = ((9, 8), (6, 4, 5), (4, 4, 3, 5), (3, 4, 2, 3, 2))
WITH_POSITIONS = ANY[1:]
EIGHTS = ((8, 4), (8, 4, 3), (8, 6, 2, 3))
WHITENED = ((30, 4), (12, 4, 5), (6, 6, 3, 4))
WEIGHTS = ((5, 7), (4, 3, 5), (4, 3, 2, 2))

TWINS: dict[str, Twin] = {
    "none": Twin(lambda x: x, ANY),
    "batch": Twin(lambda x: F.batch_norm(x, None, None, training=True, eps=EPS), ANY),
    "batch-per-activation": Twin(over(lambda rank: (0,)), ANY, channels=lambda shape: shape[1:]),
    "layer": Twin(lambda x: F.layer_norm(x, x.shape[1:], eps=EPS), ANY),
    "layer-over-channels": Twin(over(lambda rank: (1,)), ANY),
    "instance": Twin(lambda x: F.instance_norm(x, eps=EPS), WITH_POSITIONS),
    "group": Twin(lambda x: F.group_norm(x, 2, eps=EPS), ANY, {"groups": 2}),
    "rms": Twin(rms, ANY),
    "filter-response": Twin(response, WITH_POSITIONS),
    "ghost": Twin(ghost, EIGHTS, {"size": 4}),
    "l1-batch": Twin(over(all_but_channels, p=1.0, factor=math.sqrt(math.pi / 2)), ANY),
    "lp-batch": Twin(over(all_but_channels, p=3.0, about_mean=False), ANY, {"p": 3.0}),
    "linf-batch": Twin(linf, ANY),
    "weight": Twin(
        lambda v: v / torch.linalg.vector_norm(v, dim=tuple(range(1, v.ndim)), keepdim=True),
        WEIGHTS,
        channels=lambda shape: shape[0],
        first=0,
    ),
    "weight-standardization": Twin(
        over(lambda rank: tuple(range(1, rank))),
        WEIGHTS,
        channels=lambda shape: shape[0],
        first=0,
    ),
    "zca": Twin(lambda x: whiten(x, zca_root), WHITENED, {"groups": 2}),
    "pca": Twin(lambda x: whiten(x, pca_root), WHITENED, {"groups": 2}),
}

PHI: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda u: u,
    **{name: known.module() for name, known in ACTIVATIONS.items()},
}
