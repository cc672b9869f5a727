"""Architectures that nobody here wrote: small models of `transformers` with random weights.

Nothing is downloaded.  The surgery is tried on all of them, as `warmed` leaves them; the doctor's
false alarms are counted on the classifiers, trained on digits.

    from benchmarks.zoo import ARCHITECTURES, build, train
    healthy = build("resnet-basic")
    accuracy = train(healthy, epochs=12)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.errors import AnynormError, nearest
from anynorm.study.data import seeded
from benchmarks.zoo_classifiers import CLASSIFIERS
from benchmarks.zoo_dense import DENSE
from benchmarks.zoo_digits import digits_batches, digits_labels, train
from benchmarks.zoo_parts import Architecture, Classifier, logits
from benchmarks.zoo_sequences import SEQUENCES

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Classifier",
    "batch_norms",
    "build",
    "digits_batches",
    "digits_labels",
    "find",
    "logits",
    "train",
    "warmed",
]

ARCHITECTURES: tuple[Architecture, ...] = (*CLASSIFIERS, *DENSE, *SEQUENCES)
SAMPLES = 8
Example = Callable[[int], dict[str, Tensor]]


def find(name: str) -> Architecture:
    """The row of that name; raises `AnynormError` if there is none."""
    rows = {row.name: row for row in ARCHITECTURES}
    if name not in rows:
        raise AnynormError(
            f"the zoo has no {name!r}.{nearest(name, rows)} Its names: {', '.join(rows)}."
        )
    return rows[name]


def build(name: str, seed: int = 0) -> nn.Module:
    """The model in train mode with the random weights of the seed; random states are restored."""
    with seeded(seed):
        return find(name).build().train()


def batch_norms(model: nn.Module) -> dict[str, Any]:
    """The modules with running statistics, whatever their class, by name."""
    named = model.named_modules()
    return {name: part for name, part in named if getattr(part, "running_var", None) is not None}


def warmed(model: nn.Module, example: Example, steps: int = 3, seed: int = 0) -> nn.Module:
    """Give batch norms, in place, a γ in [0.5, 1.5], a β in [-0.3, 0.3] and fitting statistics.

    The statistics are the means over `steps` batches of 8 samples: with a momentum they would
    still be those of a fresh model.  Only batch norms are in train mode meanwhile, so that neither
    dropout nor missing labels matter.  Frozen layers, whose buffers no forward moves, get random
    statistics.  The model is left in eval mode.
    """
    layers = list(batch_norms(model).values())
    model.eval()
    with torch.no_grad(), seeded(seed):
        for layer in layers:
            _randomise(layer)
        with _averaging(layers):
            for _ in range(steps):
                model(**example(SAMPLES))
    return model


def _randomise(layer: Any) -> None:
    for name, low, high in (("weight", 0.5, 1.5), ("bias", -0.3, 0.3)):
        values = getattr(layer, name, None)
        if values is not None:
            values.uniform_(low, high)
    if getattr(layer, "num_batches_tracked", None) is None:
        layer.running_mean.uniform_(-0.2, 0.2)
        layer.running_var.uniform_(0.5, 1.5)


@contextmanager
def _averaging(layers: Iterable[Any]) -> Iterator[None]:
    """Running statistics are plain means over the batches from here on."""
    momenta = [(layer, layer.momentum) for layer in layers if hasattr(layer, "momentum")]
    for layer, _ in momenta:
        layer.reset_running_stats()
        layer.train().momentum = None
    try:
        yield
    finally:
        for layer, momentum in momenta:
            layer.eval().momentum = momentum
