"""The test row of each catalogue entry: the same in plain torch, and how it is built.

Every test that goes through the catalogue reads its options and shapes here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from anynorm.activations import ACTIVATIONS
from anynorm.catalogue import catalogue
from anynorm.spec import Renorm

EPS = 1e-5
Shape = tuple[int, ...]


def affine(z: Tensor, gamma: Tensor, beta: Tensor, first: int = 1) -> Tensor:
    after = (1,) * (z.ndim - first - beta.ndim)
    gamma, beta = (p.reshape((1,) * first + tuple(p.shape) + after) for p in (gamma, beta))
    return z * gamma + beta


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


def ghost(x: Tensor, size: int = 3) -> Tensor:
    parts = [F.batch_norm(part, None, None, training=True, eps=EPS) for part in x.split(size)]
    return torch.cat(parts)


def rms(x: Tensor, eps: float = EPS) -> Tensor:
    return F.rms_norm(x, x.shape[1:], eps=eps)


def response(x: Tensor) -> Tensor:
    return x / (x.square().mean(positions(x.ndim), keepdim=True) + 1e-6).sqrt()


def corrected(unit: Tensor, x: Tensor, dims: Shape, limits: Renorm) -> Tensor:
    """Batch renorm by the running statistics of a fresh layer, mean 0 and variance 1."""
    var, mean = torch.var_mean(x.detach(), dims, correction=0, keepdim=True)
    r = ((var + EPS) / (1 + EPS)).sqrt().clamp(1 / limits.r_max, limits.r_max)
    return r * unit + (mean / math.sqrt(1 + EPS)).clamp(-limits.d_max, limits.d_max)


def renorm(x: Tensor) -> Tensor:
    unit = F.batch_norm(x, None, None, training=True, eps=EPS)
    return corrected(unit, x, all_but_channels(x.ndim), Renorm(1.01, 0.001))


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
    """ẑ in torch; the shapes to try and the options of create(); where γ lies, and what it is.

    Options give sizes that divide 4 channels and 6 samples, and limits that random data exceed.
    """

    normalize: Callable[[Tensor], Tensor]
    shapes: tuple[Shape, ...]
    options: Mapping[str, Any] = MappingProxyType({})
    channels: Callable[[Shape], int | Shape] = lambda shape: shape[1]
    first: int = 1
    gain: Callable[[Tensor], Tensor] = lambda stored: stored


# Three values at least to each μ and σ: two are ±1 whatever they were, and their dx is rounding.
ANY = ((9, 8), (6, 4, 5), (4, 4, 3, 5), (3, 4, 2, 3, 2))
WITH_POSITIONS = ANY[1:]
SIXES = ((6, 4), (6, 4, 3), (6, 6, 2, 3))
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
    "ghost": Twin(ghost, SIXES, {"size": 3}),
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
    "pixel": Twin(lambda x: x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt(), ANY),
    "scale": Twin(lambda x: F.normalize(x.flatten(1)).reshape(x.shape), ANY),
    "gemma-rms": Twin(lambda x: rms(x, 1e-6), ANY, gain=lambda stored: 1 + stored),
    "llama-rms": Twin(lambda x: rms(x, 1e-6), ANY),
    "batch-renorm": Twin(renorm, ANY, {"r_max": 1.01, "d_max": 0.001}),
}

PHI: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda u: u,
    **{name: known.module() for name, known in ACTIVATIONS.items()},
}

ON_INPUT = [name for name, row in catalogue.items() if row.spec.on == "input"]


def options(name: str) -> dict[str, Any]:
    """The options that an entry is built with in the tests."""
    return dict(TWINS[name].options) if name in TWINS else {}


def sizes(name: str) -> dict[str, Any]:
    """Those of them that are sizes: the constants of the specification are the catalogue's."""
    return {key: value for key, value in options(name).items() if key in catalogue[name].sizes}


def channels(name: str, shape: Shape) -> int | Shape:
    """The channels of an entry for inputs (N, C, *) of this shape."""
    return TWINS[name].channels(shape)
