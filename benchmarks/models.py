"""The models that are trained from end to end, and what they are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import network, transformer
from benchmarks.network import Bottleneck, Network
from benchmarks.transformer import Transformer

__all__ = ["LAYOUTS", "MODELS", "Model", "Size"]

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CLASSES, TOKENS = 10, 1000


@dataclass(frozen=True)
class Size:
    """How many samples, of which side or length, through layers of which width."""

    batch: int
    size: int
    width: int


@dataclass(frozen=True)
class Model:
    """How a model is built, by whose layers, and how its next batch is drawn: input and targets.

    `scores` of an output are (N, classes) for the N targets.
    """

    build: Callable[[str, Size], nn.Module]
    batch: Callable[[Size, torch.Generator], tuple[Tensor, Tensor]]
    layouts: tuple[str, ...]
    size: Size

    def loss(self, scores: Tensor, wanted: Tensor) -> Tensor:
        return nn.functional.cross_entropy(scores.flatten(0, -2).float(), wanted.flatten())


def _images(size: Size, data: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(size.batch, 3, size.size, size.size, generator=data, device=data.device)
    return x, torch.randint(CLASSES, (size.batch,), generator=data, device=data.device)


def _tokens(size: Size, data: torch.Generator) -> tuple[Tensor, Tensor]:
    shape = (size.batch, size.size + 1)
    tokens = torch.randint(TOKENS, shape, generator=data, device=data.device)
    return tokens[:, :-1], tokens[:, 1:]


def _resnet50(name: str, size: Size) -> nn.Module:
    norm = network.NORMS[name]
    return Network(norm, size.width, CLASSES, Bottleneck, (3, 4, 6, 3), pool=True)


MODELS = {
    "resnet": Model(
        lambda name, size: Network(network.NORMS[name], size.width, CLASSES),
        _images,
        tuple(LAYOUTS),
        Size(32, 64, 64),
    ),
    "resnet50": Model(_resnet50, _images, tuple(LAYOUTS), Size(256, 224, 64)),
    "transformer": Model(
        lambda name, size: Transformer(transformer.NORMS[name], size.width, 12, TOKENS),
        _tokens,
        ("contiguous",),
        Size(16, 1024, 1024),
    ),
}
