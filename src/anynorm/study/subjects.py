"""The networks that the study can train, and the settings each is studied with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Protocol

from torch import Tensor, nn

from anynorm.study.experiments import Experiments
from anynorm.study.norm_argument import MakeNorm
from anynorm.study.transformer import CharTransformer

__all__ = ["SUBJECTS", "USER", "USER_ATTENTION", "Factory", "Settings", "Subject"]


class Factory(Protocol):
    """Builds a network for samples of shape `inputs`; ``norm(channels)`` gives a normalizer."""

    def __call__(
        self, inputs: tuple[int, ...], outputs: int, *, norm: MakeNorm, placement: str
    ) -> nn.Module:
        """Return the network, for inputs (N, *inputs) and outputs (N, outputs)."""
        ...


def _normed(norm: nn.Module, activation: nn.Module, placement: str) -> list[nn.Module]:
    return [norm, activation] if placement == "before" else [activation, norm]


def _mlp(depth: int, activation: type[nn.Module], *, std: float | None) -> Factory:
    """`depth` hidden layers of 100 units; `std` of Gaussian weights, or None for He's."""

    def build(
        inputs: tuple[int, ...], outputs: int, *, norm: MakeNorm, placement: str
    ) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for index in range(depth):
            layers += [nn.Linear(100 if index else prod(inputs), 100)]
            layers += _normed(norm(100, channels_last=False), activation(), placement)
        return _initialised(nn.Sequential(*layers, nn.Linear(100, outputs)), std)

    return build


def _cnn(inputs: tuple[int, ...], outputs: int, *, norm: MakeNorm, placement: str) -> nn.Module:
    """Convolutions 16-pool-32-pool-32-32, the mean over positions, and a linear head."""
    layers: list[nn.Module] = []
    channels = inputs[0]
    for width, pool in ((16, True), (32, True), (32, False), (32, False)):
        layers += [nn.Conv2d(channels, width, 3, padding=1)]
        layers += _normed(norm(width, channels_last=False), nn.ReLU(), placement)
        layers += [nn.MaxPool2d(2)] if pool else []
        channels = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs)]
    return _initialised(nn.Sequential(*layers, *head), None)


def _deep_linear(
    inputs: tuple[int, ...],
    outputs: int,
    *,
    norm: MakeNorm,
    placement: str,  # noqa: ARG001 - there is no activation to stand before or after
) -> nn.Module:
    """25 linear layers of 10 units without activations (Santurkar et al. 2018)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for index in range(24):
        layers += [nn.Linear(10 if index else prod(inputs), 10)]
        layers += [norm(10, channels_last=False)]
    model = nn.Sequential(*layers, nn.Linear(10, outputs))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


class PixelRNN(nn.Module):
    """h ← tanh(norm(W h + V x)) over the pixels, with one normalizer shared by all time steps."""

    def __init__(self, outputs: int, norm: nn.Module, placement: str, width: int = 100) -> None:
        super().__init__()
        self.input = nn.Linear(1, width)
        self.recurrent = nn.Linear(width, width, bias=False)
        self.norm, self.activation, self.placement = norm, nn.Tanh(), placement
        self.head = nn.Linear(width, outputs)
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.orthogonal_(self.recurrent.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, *) gives (N, outputs); the values of a sample are read one by one."""
        pixels = self.input(x.flatten(1).unsqueeze(-1))
        hidden = x.new_zeros(len(x), self.recurrent.in_features)
        for pixel in pixels.unbind(1):
            total = pixel + self.recurrent(hidden)
            if self.placement == "before":
                hidden = self.activation(self.norm(total))
            else:
                hidden = self.norm(self.activation(total))
        scores: Tensor = self.head(hidden)
        return scores


def _rnn(
    inputs: tuple[int, ...],  # noqa: ARG001 - it reads the values of a sample one by one
    outputs: int,
    *,
    norm: MakeNorm,
    placement: str,
) -> nn.Module:
    return PixelRNN(outputs, norm(100, channels_last=False), placement)


def _char_transformer(
    inputs: tuple[int, ...], outputs: int, *, norm: MakeNorm, placement: str
) -> nn.Module:
    return CharTransformer(inputs[0], outputs, norm=norm, placement=placement)


def _initialised(model: nn.Module, std: float | None) -> nn.Module:
    """Gaussian weights of the given deviation, or He's (2015, arXiv:1502.01852); zero biases."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            if std is None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


@dataclass(frozen=True)
class Settings:
    """The base cell of a subject and the values its star of comparisons goes through."""

    data: str = "digits"
    norms: tuple[str, ...] = ("none", "batch", "layer", "group:groups=4", "rms", "weight")
    lr: float = 0.1
    steps: int = 300
    batch: int = 60
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    warmup: int = 0
    lrs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    inits: tuple[float, ...] = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
    batches: tuple[int, ...] = ()
    # The batch sizes are compared for these alone: others do not depend on the batch.
    batch_norms: tuple[str, ...] = ("batch", "group:groups=4")
    # Variants of another normalizer are compared with it at the base learning rate and those near
    # it alone, and probed at a part of the early steps.
    variants: tuple[str, ...] = ()
    placements: tuple[str, ...] = ("before",)
    noise: bool = True
    experiments: Experiments = field(default_factory=lambda: Experiments(fixed_affine=True))


_HALVES = (32, 16, 8, 4, 2)
_GROUP = "group:groups=4"


@dataclass(frozen=True)
class Subject:
    """A network with the settings of its study, and the places its normalizers can have."""

    build: Factory
    settings: Settings = field(default_factory=Settings)
    placements: tuple[str, ...] = ("before", "after")
    reads_characters: bool = False


SUBJECTS: Mapping[str, Subject] = MappingProxyType(
    {
        # The 3x100 net of Ioffe & Szegedy 2015 (arXiv:1502.03167), with small Gaussian weights.
        "mlp-sigmoid": Subject(
            _mlp(3, nn.Sigmoid, std=0.01),
            Settings(
                # Whitening of all 100 units at once would rest on 60 samples.
                norms=(*Settings.norms, "zca:groups=10"),
                lr=1.0,
                steps=600,
                lrs=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
                inits=(),
                # A deviation of 1 saturates the net from the start.
                experiments=Experiments(probed_inits=(100.0,), fixed_affine=True),
            ),
        ),
        "mlp-relu": Subject(
            _mlp(8, nn.ReLU, std=None),
            Settings(
                norms=(
                    "none",
                    "batch",
                    "layer",
                    _GROUP,
                    "rms",
                    "l1-batch",
                    "linf-batch",
                    "weight",
                ),
                variants=("l1-batch", "linf-batch", "rms"),
                inits=(0.1, 0.3, 1.0, 3.0, 10.0),
                batches=_HALVES,
                placements=("before", "after"),
                # At equal epochs, a batch of 2 alone would take longer than all other runs.
                experiments=Experiments(budgets=("steps",), fixed_affine=True),
            ),
        ),
        "cnn": Subject(
            _cnn,
            Settings(
                data="varied-digits",
                norms=("none", "batch", "layer", _GROUP),
                lr=0.3,
                steps=400,
                lrs=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
                inits=(),
                batches=(32, 8, 2),
            ),
        ),
        # Batch statistics shared by all time steps against none shared (Ba et al. 2016).
        "rnn": Subject(
            _rnn,
            Settings(
                norms=("none", "batch", "layer"),
                lr=0.03,
                steps=600,
                lrs=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
                inits=(),
                noise=False,
            ),
        ),
        # Warm-up and the learning rate decide what a post-LN transformer can do (Xiong et al. 2020,
        # arXiv:2002.04745).
        "char-transformer": Subject(
            _char_transformer,
            Settings(
                data="python-text",
                norms=("none", "layer", "rms", "rms:qk=true"),
                optimizer="adamw",
                weight_decay=0.01,
                warmup=40,
                lr=0.01,
                steps=400,
                batch=16,
                lrs=(0.001, 0.003, 0.01, 0.03, 0.1),
                inits=(),
                placements=("pre", "post"),
                noise=False,
            ),
            placements=("pre", "post"),
            reads_characters=True,
        ),
        # All 1,000 samples in one batch, as Santurkar et al. 2018 (arXiv:1805.11604) train it.
        "deep-linear": Subject(
            _deep_linear,
            Settings(
                data="gaussian",
                norms=("none", "batch", "layer"),
                lr=0.01,
                steps=1000,
                lrs=(0.001, 0.003, 0.01, 0.03, 0.1),
                inits=(),
                batch=1000,
            ),
        ),
    }
)

# A user's own model, of which nothing is known: fewer runs, as they may be long.
USER = Settings(inits=(0.1, 1.0, 10.0))
USER_ATTENTION = replace(
    USER,
    optimizer="adamw",
    weight_decay=0.01,
    warmup=15,
    lr=0.001,
    lrs=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
)
