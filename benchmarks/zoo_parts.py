"""What a row of the zoo is made of: a configuration as data, a random batch, a classifying head."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "CLASSES",
    "WAVE",
    "Architecture",
    "Classifier",
    "Config",
    "config",
    "floats",
    "images",
    "logits",
    "pretrained",
    "transformers_class",
    "with_head",
]

CLASSES = 10
# Speech models with an encoder of waves, as Wav2Vec2 has.
WAVE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 2),
    "conv_kernel": (10, 8, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "apply_spec_augment": False,
    "layerdrop": 0.0,  # a layer left out would not see the batch
}
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """One model: how to build it, and what it is called with.

    `build` takes its random weights from torch's generator, and `example` the keyword arguments of
    a batch of n samples.  One that `classifies` takes `images(32)`, and learns digits in `epochs`.
    `fault` says what is wrong with its normalization in `transformers` itself, if anything.
    """

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[int], Batch]
    epochs: int = 0
    fault: str = ""

    @property
    def classifies(self) -> bool:
        return self.epochs > 0


@dataclass(frozen=True)
class Config:
    """A configuration of transformers that is made only when a model is built."""

    kind: str
    settings: dict[str, Any]

    def make(self) -> Any:
        return transformers_class(self.kind)(**{k: _made(v) for k, v in self.settings.items()})


def config(kind: str, **settings: Any) -> Config:
    return Config(kind, settings)


def _made(value: Any) -> Any:
    # A copy, since some configurations edit the lists that they are given.
    return value.make() if isinstance(value, Config) else deepcopy(value)


def transformers_class(name: str) -> Any:
    """A class by its name, imported when it is needed: transformers takes seconds to import."""
    return getattr(importlib.import_module("transformers"), name)


def pretrained(model: str, settings: Config) -> Callable[[], nn.Module]:
    """Builds a model of transformers with random weights."""
    return lambda: redrawn(transformers_class(model)(settings.make()))


@torch.no_grad()
def redrawn(model: nn.Module) -> nn.Module:
    """Draw the weights of convolutions and linear layers anew, and biases where they are zero.

    Transformers draws them with σ = 0.02, which suits layers of hundreds of channels.  In ours the
    signal would fall below batch norm's ε, and heads that start at zero would answer nothing.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            layer.weight.normal_(0, layer.weight[0].numel() ** -0.5)
            if layer.bias is not None and not layer.bias.any():
                layer.bias.uniform_(-0.1, 0.1)
    return model


def with_head(model: str, settings: Config, features: int) -> Callable[[], nn.Module]:
    """Builds a backbone of transformers with a head that classifies by its `features`."""
    return lambda: Classifier(pretrained(model, settings)(), features, CLASSES)


class Classifier(nn.Module):
    """The mean over space (or tokens) of a backbone's last features, and a linear layer."""

    def __init__(self, backbone: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(features, classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Images (N, 3, H, W) to scores (N, classes)."""
        last = _last_features(self.backbone(pixel_values=pixel_values))
        pooled = last.mean((2, 3)) if last.ndim == 4 else last.mean(1)
        return self.head(pooled)  # type: ignore[no-any-return]


def _last_features(output: Any) -> Tensor:
    """Of shape (N, C, H, W) or (N, tokens, C)."""
    maps = getattr(output, "feature_maps", None)
    last: Tensor = maps[-1] if maps else output.last_hidden_state
    return last


def logits(output: Any) -> Tensor:
    """The scores (N, classes) in what any classifier of the zoo returns."""
    if isinstance(output, Tensor):
        return output
    scores: Tensor | None = getattr(output, "logits", None)
    return output.last_hidden_state if scores is None else scores  # so PP-LCNet names them


def images(height: int, width: int | None = None) -> Callable[[int], Batch]:
    """Batches of random images under the keyword that vision models share."""
    return floats("pixel_values", 3, height, width or height)


def floats(keyword: str, *shape: int) -> Callable[[int], Batch]:
    """Batches of normal numbers: n samples of the shape."""
    return lambda n: {keyword: torch.randn(n, *shape)}
