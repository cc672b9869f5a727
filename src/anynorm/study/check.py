"""Checks before any training whether the cells of a study can run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.errors import AnynormError, type_of
from anynorm.lookup import ended_by
from anynorm.study.build import build
from anynorm.study.cell import Cell
from anynorm.study.data import Data, load, seeded
from anynorm.study.evaluate import predict
from anynorm.study.within import SECONDS, within

__all__ = ["check"]


def check(cells: Iterable[Cell], seconds: float = SECONDS) -> None:
    """Load the data and try every distinct model on its smallest batch.

    Raises `AnynormError` for an unknown name, a batch larger than the training set, a model that
    cannot be built or trained or takes longer than `seconds`, and outputs that do not fit the
    targets.
    """
    for cell in _distinct(cells):
        data = load(cell.data)
        if cell.batch > len(data.train_x):
            raise AnynormError(
                f"batch {cell.batch} is larger than the training set of {cell.data!r}, "
                f"{len(data.train_x)} samples; choose a smaller batch."
            )
        with seeded(cell.seed):
            _try(cell, data, seconds)


def _distinct(cells: Iterable[Cell]) -> list[Cell]:
    """For each model the cells with its smallest batch, which may be too small, and its largest."""
    found: dict[Any, list[Cell]] = {}
    for cell in cells:
        model = (cell.subject, cell.data, cell.label, cell.placement)
        found.setdefault(model, []).append(cell)
    ends = (sorted(group, key=lambda cell: cell.batch) for group in found.values())
    return [cell for group in ends for cell in dict.fromkeys((group[0], group[-1]))]


def _try(cell: Cell, data: Data, seconds: float) -> None:
    """Try training and evaluation once; errors name the cell."""
    try:
        with within(seconds, "building it and training on one batch"):
            _use_once(cell, data)
    except AnynormError as error:
        raise AnynormError(f"{cell.label} in {cell.subject}: {error}") from error
    except SystemExit as error:
        raise AnynormError(f"{cell.label} in {cell.subject}: {ended_by(error)}") from error
    except Exception as error:
        shape = (cell.batch, *data.inputs)
        raise AnynormError(
            f"{cell.label} in {cell.subject}: a batch of shape {shape} raised "
            f"{type(error).__name__}: {error}"
        ) from error


def _use_once(cell: Cell, data: Data) -> None:
    x, y = data.train_x[: cell.batch], data.train_y[: cell.batch]
    model = build(cell, data)
    prediction = model.train()(x)
    _check_prediction(prediction, y, data)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not (parameters and prediction.requires_grad):
        raise AnynormError("the model has no parameters to train.")
    torch.autograd.grad(data.loss(prediction, y), parameters, allow_unused=True)
    predict(model, data.test_x[:2])
    _try_held_out(model, data, cell.batch)


def _try_held_out(model: nn.Module, data: Data, batch: int) -> None:
    """Try train mode too: a held-out set smaller than a batch may be too small for statistics."""
    x = data.test_x[:batch]
    try:
        predict(model, x, size=batch, train=True)
    except Exception as error:
        raise AnynormError(
            f"it trains on a batch of {batch}, but a forward pass in train mode on {len(x)} "
            f"held-out samples raised {error}"
        ) from error


def _check_prediction(prediction: Any, y: Tensor, data: Data) -> None:
    if not isinstance(prediction, Tensor):
        kind = type_of(prediction)
        raise AnynormError(f"the model returned {kind}; its output must be one tensor.")
    shape = tuple(prediction.shape)
    if data.task == "regression":
        rule = (
            f"as many values as the targets, {tuple(y.shape)}, with a row for each sample. "
            "For a classification give integer targets"
        )
        fits = shape[:1] == y.shape[:1] and prediction.numel() == y.numel()
    else:
        axes = "samples, classes" if y.ndim == 1 else f"samples, {y.shape[1]} positions, classes"
        rule = f"({axes}), with {data.outputs} classes or more. For a regression give float targets"
        fits = shape[:-1] == y.shape and shape[-1] >= data.outputs
    if not fits:
        raise AnynormError(f"the output for {len(y)} samples has shape {shape}; it must be {rule}.")
