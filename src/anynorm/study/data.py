"""Data sets, held in memory as tensors: built in, from torchvision, or from a user's function."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from anynorm import lookup
from anynorm.errors import AnynormError, nearest, type_of
from anynorm.study.extras import require
from anynorm.study.python_text import ALPHABET, python_text
from anynorm.study.varied_digits import varied

__all__ = ["BUILT_IN", "Data", "load", "seeded"]

_DIGITS_SPLIT = [1297, 500]
# Images made of each training and of each held-out digit, in varied-digits. Several images of one
# held-out digit would not be independent, but the intervals assume that samples are.
_COPIES = (8, 1)
_EXPECTED = (
    "Expected two datasets (training, held-out), each a map-style Dataset of (x, y) pairs "
    "or a tuple (x, y) of tensors or arrays with one row for each sample."
)


@dataclass(frozen=True)
class Data:
    """Samples along the first axis, and their targets.

    `task` is "classification" (one class for each sample), "language" (one class, a character or
    token, for each position of a sequence) or "regression". `outputs` counts the classes, or the
    regressed values.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    task: str
    outputs: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.train_x.shape[1:])

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean cross-entropy of class scores in nats, or the mean squared error.

        Shape:
            Scores (N, classes) for a classification; (N, T, classes) for language, with targets
            (N, T); as many values as the targets for a regression.
        """
        if self.task == "classification":
            return F.cross_entropy(prediction, target)
        if self.task == "language":
            return F.cross_entropy(prediction.flatten(0, 1), target.flatten())
        return F.mse_loss(prediction, target.view_as(prediction))


@lru_cache(maxsize=4)
def load(name: str) -> Data:
    """Load a built-in data set, 'torchvision:NAME', or data from ``package.module:function``.

    Built in are 'digits', 'varied-digits' (see `anynorm.study.varied_digits`), 'gaussian' and
    'python-text' (see `anynorm.study.python_text`).

    A user's function is called with the random generators seeded, so that every worker process
    gets the same samples. Raises `AnynormError` if the name or its data cannot be used.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name.startswith("torchvision:"):
        return _from_pair(_torchvision(name.partition(":")[2]), name)
    if lookup.is_path(name):
        return _from_pair(_call(name), name)
    raise AnynormError(
        f"there is no data set named {name!r}.{nearest(name, BUILT_IN)} "
        f"Known: {', '.join(BUILT_IN)}, torchvision:NAME, package.module:function."
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch, NumPy and Python, and restore their states at the end."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def _digits() -> Data:
    """scikit-learn's 1,797 images (N, 1, 8, 8), standardised by the training set's moments."""
    return _standardised(*_digit_images("digits"))


def _varied_digits() -> Data:
    """10,376 training and 500 held-out images (N, 1, 12, 12), made from different digits."""
    parts = zip(_digit_images("varied-digits"), _COPIES, strict=True)
    made = [varied(x, y, copies, seed) for seed, ((x, y), copies) in enumerate(parts)]
    return _standardised(made[0], made[1])


Images = tuple[Tensor, Tensor]


def _digit_images(name: str) -> tuple[Images, Images]:
    """Return training and held-out digits with values from 0 to 1, and their labels."""
    require("sklearn", f"data {name!r}")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.tensor(images[order], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(labels[order], dtype=torch.int64)
    (train_x, test_x), (train_y, test_y) = (torch.split(part, _DIGITS_SPLIT) for part in (x, y))
    return (train_x, train_y), (test_x, test_y)


def _standardised(train: Images, test: Images) -> Data:
    """Return images of ten classes, standardised by the mean and deviation of the training set."""
    mean, deviation = train[0].mean(), train[0].std()
    train_x, test_x = ((x - mean) / deviation for x in (train[0], test[0]))
    return Data(train_x, train[1], test_x, test[1], "classification", 10)


def _gaussian() -> Data:
    """y = A x with Gaussian x and A in ten dimensions (Santurkar et al. 2018, arXiv:1805.11604)."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(10, 10, generator=generator)
    x = torch.randn(2000, 10, generator=generator)
    y = x @ matrix.T
    return Data(x[:1000], y[:1000], x[1000:], y[1000:], "regression", 10)


def _python_text() -> Data:
    """The sources of Python's standard library; see `anynorm.study.python_text`."""
    (train_x, train_y), (test_x, test_y) = python_text()
    return Data(train_x, train_y, test_x, test_y, "language", len(ALPHABET) + 1)


BUILT_IN: dict[str, Callable[[], Data]] = {
    "digits": _digits,
    "varied-digits": _varied_digits,
    "gaussian": _gaussian,
    "python-text": _python_text,
}


def _call(name: str) -> Any:
    with seeded(0):
        return lookup.called(name, "data")


def _torchvision(name: str) -> tuple[Any, Any]:
    require("torchvision", f"data 'torchvision:{name}'")
    datasets = importlib.import_module("torchvision.datasets")
    transforms = importlib.import_module("torchvision.transforms")
    if not hasattr(datasets, name):
        raise AnynormError(f"torchvision has no data set {name!r}.{nearest(name, dir(datasets))}")
    root, transform = Path(torch.hub.get_dir()).parent / "datasets", transforms.ToTensor()
    try:
        make = getattr(datasets, name)
        return (
            make(str(root), train=True, download=True, transform=transform),
            make(str(root), train=False, download=True, transform=transform),
        )
    except Exception as error:
        raise AnynormError(
            f"torchvision:{name} could not be loaded into {root}: {error!r}. "
            "For a data set with other arguments, write a function that returns two datasets."
        ) from error


def _from_pair(pair: Any, name: str) -> Data:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise AnynormError(f"data {name!r} returned {_describe(pair)}. {_EXPECTED}")
    (train_x, train_y), (test_x, test_y) = (_tensors(part, name) for part in pair)
    if train_x.shape[1:] != test_x.shape[1:]:
        raise AnynormError(
            f"data {name!r}: training samples have shape {tuple(train_x.shape[1:])}, but held-out "
            f"ones have {tuple(test_x.shape[1:])}; both must be equal."
        )
    _check_targets(train_y, test_y, name)
    if train_y.is_floating_point():
        return Data(train_x, train_y, test_x, test_y, "regression", max(1, train_y[0].numel()))
    classes = int(max(train_y.max(), test_y.max())) + 1
    task = "language" if train_y.ndim == 2 else "classification"
    return Data(train_x, train_y, test_x, test_y, task, classes)


def _check_targets(train_y: Tensor, test_y: Tensor, name: str) -> None:
    kinds = [(y.dtype, tuple(y.shape[1:])) for y in (train_y, test_y)]
    if kinds[0] != kinds[1]:
        words = ", but held-out ones ".join(f"{dtype} of shape {shape}" for dtype, shape in kinds)
        raise AnynormError(f"data {name!r}: training targets are {words}; both must be equal.")
    if not train_y.is_floating_point() and min(train_y.min(), test_y.min()) < 0:
        raise AnynormError(
            f"data {name!r} has a negative label; number the classes from 0, "
            "or give floats for a regression."
        )


def _tensors(part: Any, name: str) -> tuple[Tensor, Tensor]:
    """The inputs and targets of one of the two datasets."""
    if _is_arrays(part):
        x, y = (_tensor(item, name) for item in part)
    elif hasattr(part, "__getitem__") and hasattr(part, "__len__") and not isinstance(part, str):
        x, y = _stacked(part, name)
    else:
        raise AnynormError(f"data {name!r} returned {_describe(part)} as a dataset. {_EXPECTED}")
    _check_samples(x, y, name)
    y = _as_target(y)
    return _as_input(x, y), y


def _is_arrays(part: Any) -> bool:
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        return False
    return all(hasattr(item, "shape") for item in part)


def _tensor(array: Any, name: str) -> Tensor:
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.copy()  # torch warns about read-only memory, such as a mapped file
    try:
        return torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AnynormError(
            f"data {name!r}: {_describe(array)} cannot become a tensor ({error}). {_EXPECTED}"
        ) from error


def _stacked(dataset: Any, name: str) -> tuple[Tensor, Tensor]:
    try:
        pairs = [dataset[index] for index in range(len(dataset))]
        return (
            torch.stack([torch.as_tensor(x) for x, _ in pairs]),
            torch.stack([torch.as_tensor(y) for _, y in pairs]),
        )
    except Exception as error:  # a dataset of the user may raise anything
        raise AnynormError(
            f"data {name!r}: the samples of {_describe(dataset)} cannot be stacked into tensors "
            f"({error!r}). {_EXPECTED}"
        ) from error


def _check_samples(x: Tensor, y: Tensor, name: str) -> None:
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y) or len(x) == 0:
        raise AnynormError(
            f"data {name!r} returned x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}; "
            "x needs one row of features for each sample, and y as many rows as x."
        )
    if not y.is_floating_point() and y.numel() != len(y) and (y.ndim != 2 or _is_one_hot(y)):
        raise AnynormError(
            f"data {name!r} returned integer targets of shape {tuple(y.shape)}; give one label for "
            "each sample (N,) or for each position of a sequence (N, T), not one-hot, or floats "
            "for a regression."
        )
    for letter, values in (("x", x), ("y", y)):
        if not bool(values.isfinite().all()):
            raise AnynormError(
                f"data {name!r}: {letter} has values that are not finite; remove them first."
            )


def _is_one_hot(y: Tensor) -> bool:
    return bool(((y == 0) | (y == 1)).all()) and bool((y.sum(dim=1) == 1).all())


def _as_input(x: Tensor, y: Tensor) -> Tensor:
    """Floats as float32, integers as int64; bytes are pixels unless each has a target."""
    if x.dtype == torch.uint8 and x.shape != y.shape:
        return x.float() / 255
    return x.float() if x.is_floating_point() else x.long()


def _as_target(y: Tensor) -> Tensor:
    if y.is_floating_point():
        return y.float()
    return y.long().reshape(len(y)) if y.numel() == len(y) else y.long()


def _describe(value: Any) -> str:
    size = f" of length {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type_of(value)}{size}"
