"""Loss and accuracy of a model: in eval mode, in train mode, and with recomputed statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anynorm.study.data import Data
from anynorm.surgery import recalibrate
from anynorm.surgery.normalizers import normalizers
from anynorm.surgery.snapshot import preserved

__all__ = [
    "IN_EVAL_MODE",
    "NOTHING",
    "Items",
    "Scores",
    "chance",
    "in_other_modes",
    "predict",
    "scores",
    "spread",
]

Scores = dict[str, float | None]
Items = dict[str, str | list[float]]

# Samples in one forward pass, and the most predictions that are evaluated of each part.
_CHUNK, _MOST = 1000, 10_000
# The fewest batches for the mean and variance of all training samples: if a normalizer is called
# several times for each sample, its statistics converge only after some batches.
_POOLED = 8

IN_EVAL_MODE = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_MODES = ("train_mode", "recalibrated")
NOTHING: Scores = dict.fromkeys(
    (*IN_EVAL_MODE, *(f"test_{kind}_{mode}" for kind in ("accuracy", "loss") for mode in _MODES))
)


def chance(data: Data) -> float | None:
    """The held-out accuracy of always predicting the most frequent class; None if not classes."""
    if data.task != "classification":
        return None
    return data.test_y.bincount().max().item() / len(data.test_y)


def scores(model: nn.Module, data: Data) -> Scores:
    """Loss and accuracy in eval mode on both parts of the data; the model does not change.

    Of a large part, 10,000 predictions are used, spread evenly over it. In a sequence, each
    position is one prediction.
    """
    (train_x, train_y), (test_x, test_y) = _training(data), _held_out(data)
    train, test = predict(model, train_x), predict(model, test_x)
    return {
        "train_loss": data.loss(train, train_y).item(),
        "train_accuracy": _accuracy(train, train_y, data),
        "test_loss": data.loss(test, test_y).item(),
        "test_accuracy": _accuracy(test, test_y, data),
    }


def in_other_modes(model: nn.Module, data: Data, size: int) -> tuple[Scores, Items]:
    """Held-out scores in train mode, and in eval mode with recomputed running statistics.

    In train mode batches have the same `size` as in training, and also if statistics are averages
    over batches. If statistics are the mean and variance of all training samples, batches may be
    larger. The samples are the same as in `scores`. The second result has the outcome of each
    held-out sample in eval mode, with running and with recomputed statistics: "1" or "0" for a
    right or wrong class, otherwise its loss.
    """
    x, y = _held_out(data)
    pooled = all(norm.spec.pools_batch for norm in normalizers(model) if norm.tracks)
    larger = max(size, len(data.train_x) // _POOLED) if pooled else size
    again = recalibrate(model, _batches(data, larger, whole=not pooled), passes=1)
    recomputed = predict(again.model, x)
    found: Scores = {}
    modes = zip(_MODES, (predict(model, x, size=size, train=True), recomputed), strict=True)
    for mode, prediction in modes:
        found[f"test_accuracy_{mode}"] = _accuracy(prediction, y, data)
        found[f"test_loss_{mode}"] = data.loss(prediction, y).item()
    kind = "test_accuracy" if data.task == "classification" else "test_loss"
    items = {
        kind: _each(predict(model, x), y, data),
        f"{kind}_recalibrated": _each(recomputed, y, data),
    }
    return found, items


def _each(prediction: Tensor, y: Tensor, data: Data) -> str | list[float]:
    """The outcome of each sample, in few characters, because every record has it."""
    if data.task == "classification":
        return "".join(str(int(right)) for right in prediction.argmax(dim=1) == y)
    pairs = zip(torch.split(prediction, 1), torch.split(y, 1), strict=True)
    losses = [data.loss(one, target).item() for one, target in pairs]
    return [float(f"{loss:.4g}") for loss in losses]


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, *, size: int = _CHUNK, train: bool = False) -> Tensor:
    """The output for every sample, computed in batches of `size` (or fewer, if `x` has fewer).

    The last batch is filled with earlier samples, since in train mode a smaller batch would have
    other statistics. Buffers, modes and random state do not change.
    """
    rest = len(x) % size if len(x) > size else 0
    with preserved(model):
        model.train(train)
        outputs = [model(part) for part in torch.split(x[: len(x) - rest], size)]
        outputs += [model(x[-size:])[-rest:]] if rest else []
    return torch.cat(outputs)


def _accuracy(prediction: Tensor, y: Tensor, data: Data) -> float | None:
    """The share of correct predictions; in language each character is one prediction."""
    if data.task == "regression":
        return None
    return (prediction.argmax(dim=-1) == y).double().mean().item()


def _batches(data: Data, size: int, *, whole: bool) -> list[tuple[Tensor, Tensor]]:
    """The training samples in batches of `size`, the last one smaller or, if `whole`, left out."""
    parts = zip(torch.split(data.train_x, size), torch.split(data.train_y, size), strict=True)
    return [(x, y) for x, y in parts if len(x) == size or not whole]


def _training(data: Data) -> tuple[Tensor, Tensor]:
    return _part(data.train_x, data.train_y, data)


def _held_out(data: Data) -> tuple[Tensor, Tensor]:
    return _part(data.test_x, data.test_y, data)


def _part(x: Tensor, y: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """At most `_MOST` predictions."""
    most = max(1, _MOST // y.shape[1]) if data.task == "language" else _MOST
    rows = spread(len(x), most)
    return x[rows], y[rows]


def spread(count: int, most: int) -> Tensor:
    """Indices of at most `most` samples, spread evenly, since data may be sorted by class."""
    return torch.arange(0, count, -(-count // most))
