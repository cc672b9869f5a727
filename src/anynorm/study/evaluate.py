"""Loss and accuracy of a model: in eval mode, in train mode, and with recomputed statistics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from anynorm.study.data import Data
from anynorm.surgery import recalibrate
from anynorm.surgery.snapshot import preserved

__all__ = [
    "IN_EVAL_MODE",
    "NOTHING",
    "Scores",
    "chance",
    "in_other_modes",
    "predict",
    "scores",
    "spread",
]

Scores = dict[str, float | None]

# Samples in one forward pass, and the most that are evaluated of the training set.
_CHUNK, _MOST = 1000, 10_000

IN_EVAL_MODE = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
NOTHING: Scores = dict.fromkeys(
    (*IN_EVAL_MODE, "test_accuracy_train_mode", "test_accuracy_recalibrated")
)


def chance(data: Data) -> float | None:
    """The held-out accuracy of always naming the most frequent class; None for a regression."""
    if data.task != "classification":
        return None
    return data.test_y.bincount().max().item() / len(data.test_y)


def scores(model: nn.Module, data: Data) -> Scores:
    """Loss and accuracy in eval mode on both parts of the data; the model is left as it was."""
    rows = spread(len(data.train_x), _MOST)
    train_x, train_y = data.train_x[rows], data.train_y[rows]
    train, test = predict(model, train_x), predict(model, data.test_x)
    return {
        "train_loss": data.loss(train, train_y).item(),
        "train_accuracy": _accuracy(train, train_y, data),
        "test_loss": data.loss(test, data.test_y).item(),
        "test_accuracy": _accuracy(test, data.test_y, data),
    }


def in_other_modes(model: nn.Module, data: Data, size: int) -> Scores:
    """The held-out accuracy in train mode, and in eval mode with recomputed running statistics.

    In train mode, and for the statistics, batches have the `size` they have in training.
    """
    in_train_mode = predict(model, data.test_x, size=size, train=True)
    again = recalibrate(model, _whole_batches(data, size), passes=1).model
    return {
        "test_accuracy_train_mode": _accuracy(in_train_mode, data.test_y, data),
        "test_accuracy_recalibrated": _accuracy(predict(again, data.test_x), data.test_y, data),
    }


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, *, size: int = _CHUNK, train: bool = False) -> Tensor:
    """The output for every sample, from batches of `size` (of fewer where `x` has fewer).

    The last batch is filled up with samples that came before, since in train mode a smaller one
    would have other statistics. Buffers, modes and random state are left as they were.
    """
    rest = len(x) % size if len(x) > size else 0
    with preserved(model):
        model.train(train)
        outputs = [model(part) for part in torch.split(x[: len(x) - rest], size)]
        outputs += [model(x[-size:])[-rest:]] if rest else []
    return torch.cat(outputs)


def _accuracy(prediction: Tensor, y: Tensor, data: Data) -> float | None:
    if data.task != "classification":
        return None
    return (prediction.argmax(dim=1) == y).double().mean().item()


def _whole_batches(data: Data, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    parts = zip(torch.split(data.train_x, size), torch.split(data.train_y, size), strict=True)
    return ((x, y) for x, y in parts if len(x) == size)


def spread(count: int, most: int) -> Tensor:
    """Indices of at most `most` samples, evenly spread, since data may come sorted by class."""
    return torch.arange(0, count, -(-count // most))
