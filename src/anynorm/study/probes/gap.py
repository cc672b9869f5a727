"""Running statistics computed anew, with which train and eval mode are compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.catalogue import catalogue
from anynorm.errors import AnynormError
from anynorm.nn import Norm

__all__ = ["Pooled", "recalibrate"]


class Pooled:
    """Mean and variance per channel of everything merged so far, exact and in float64.

    Batches of any size are merged by count, mean and sum of squared deviations, which loses no
    digits where a sum of squares would (Chan, Golub, LeVeque 1983; Welford 1962).

    >>> pooled = Pooled()
    >>> pooled.merge(torch.tensor([[1.0], [2.0]]))
    >>> pooled.merge(torch.tensor([[6.0]]))
    >>> pooled.mean.item(), pooled.variance.item()
    (3.0, 7.0)
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros((), dtype=torch.float64)

    def merge(self, x: Tensor) -> None:
        """Add `x`, of shape (N, C, ...)."""
        rows = x.double().movedim(1, -1).flatten(0, -2)
        mean, count = rows.mean(dim=0), len(rows)
        total = self.count + count
        delta = mean - self.mean.to(mean)
        between = delta.square() * (self.count * count / total)
        self._squares = self._squares.to(mean) + (rows - mean).square().sum(dim=0) + between
        self.mean = self.mean.to(mean) + delta * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """The unbiased variance, as running statistics keep it."""
        return self._squares / (self.count - 1)


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
    """Recompute the running statistics of `model` in place from one pass over `batches`; return it.

    Only normalization layers with running statistics work in train mode during the pass: dropout
    is off, and each layer sees what the batch statistics of the layers before it produce. Modes
    and momentum are as before afterwards. Batch normalization gets the mean and the unbiased
    variance of all values pooled. Any other statistic kept with a ``momentum`` (whitening, L1,
    ...) gets the average of the batches' statistics, weighted by their size. A layer called many
    times in a pass pools its calls.

    Raises AnynormError when `batches` is empty.

    >>> model = nn.BatchNorm1d(1)
    >>> x = torch.tensor([[1.0], [2.0], [6.0]])
    >>> _ = recalibrate(model, [(x, x)])
    >>> model.running_mean.item(), model.running_var.item()
    (3.0, 7.0)
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    layers = [_Recalibration(module) for module in model.modules() if _is_running(module)]
    passes = 0
    try:
        for x, _ in batches:
            model(x)
            passes += 1
    finally:
        for layer in layers:
            layer.end()
        for module, mode in modes:
            module.training = mode
    if not passes:
        raise AnynormError("there are no batches to measure on: give at least one (x, y) pair.")
    for layer in layers:
        layer.write()
    return model


class _Recalibration:
    """The new running statistics of one layer, in the making."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._momentum = layer, layer.momentum
        self._pooled = Pooled()
        self._samples = 0
        self._hook = layer.register_forward_pre_hook(self._see)
        layer.training = True

    def _see(self, layer: Any, args: tuple[Tensor, ...]) -> None:
        if not self._samples:
            layer.reset_running_stats()
        self._samples += len(args[0])
        # The running average with this momentum is the average weighted by the batches' sizes.
        layer.momentum = len(args[0]) / self._samples
        if _is_batch_norm(layer):
            self._pooled.merge(args[0])

    def end(self) -> None:
        self._hook.remove()
        self._layer.momentum = self._momentum

    def write(self) -> None:
        if self._pooled.count:
            self._layer.running_mean.copy_(self._pooled.mean)
            self._layer.running_var.copy_(self._pooled.variance)


def _is_running(module: nn.Module) -> bool:
    return getattr(module, "num_batches_tracked", None) is not None and hasattr(module, "momentum")


def _is_batch_norm(layer: nn.Module) -> bool:
    by_formula = isinstance(layer, Norm) and layer.spec == catalogue["batch"].spec
    return by_formula or isinstance(layer, nn.modules.batchnorm._BatchNorm)
