"""Loss and accuracy of a model: in eval mode, in train mode, and with recomputed statistics."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from anynorm.study.data import Data
from anynorm.surgery import recalibrate
from anynorm.surgery.snapshot import preserved

__all__ = ["IN_EVAL_MODE", "NOTHING", "Scores", "in_other_modes", "predict", "scores"]

Scores = dict[str, float | None]

# Samples in one forward pass, and the most predictions that are evaluated of either part.
_CHUNK, _MOST = 1000, 10_000

IN_EVAL_MODE = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
NOTHING: Scores = dict.fromkeys(
    (*IN_EVAL_MODE, "test_accuracy_train_mode", "test_accuracy_recalibrated")
)


def scores(model: nn.Module, data: Data) -> Scores:
    """Loss and accuracy in eval mode on both parts of the data; the model is left as it was.

    Of a large part, 10,000 predictions that are evenly spread over it count: of a sequence, each
    position is one.
    """
    (train_x, train_y), (test_x, test_y) = _training(data), _held_out(data)
    train, test = predict(model, train_x), predict(model, test_x)
    return {
        "train_loss": data.loss(train, train_y).item(),
        "train_accuracy": _accuracy(train, train_y, data),
        "test_loss": data.loss(test, test_y).item(),
        "test_accuracy": _accuracy(test, test_y, data),
    }


def in_other_modes(model: nn.Module, data: Data, size: int) -> Scores:
    """The held-out accuracy in train mode, and in eval mode with recomputed running statistics.

    In train mode, and for the statistics, batches have the `size` they have in training. The same
    samples count as in `scores`.
    """
    x, y = _held_out(data)
    in_train_mode = predict(model, x, size=size, train=True)
    again = recalibrate(model, _whole_batches(data, size), passes=1).model
    return {
        "test_accuracy_train_mode": _accuracy(in_train_mode, y, data),
        "test_accuracy_recalibrated": _accuracy(predict(again, x), y, data),
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
    """The share of correct predictions; of a language each character is one."""
    if data.task == "regression":
        return None
    return (prediction.argmax(dim=-1) == y).double().mean().item()


def _whole_batches(data: Data, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    parts = zip(torch.split(data.train_x, size), torch.split(data.train_y, size), strict=True)
    return ((x, y) for x, y in parts if len(x) == size)


def _training(data: Data) -> tuple[Tensor, Tensor]:
    return _spread(data.train_x, data.train_y, data)


def _held_out(data: Data) -> tuple[Tensor, Tensor]:
    return _spread(data.test_x, data.test_y, data)


def _spread(x: Tensor, y: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """At most `_MOST` predictions, evenly spread, since data may come sorted by class."""
    most = max(1, _MOST // y.shape[1]) if data.task == "language" else _MOST
    stride = -(-len(x) // most)
    return x[::stride], y[::stride]
